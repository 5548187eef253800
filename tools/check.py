"""Everything that has to hold before a change lands; prints one closing summary with the counts."""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("jax", "torch", "tensorflow")


def run(what: str, *command: str, **environment: str) -> tuple[bool, float]:
    """Run a module of this Python; return whether it succeeded and the seconds it took."""
    print(f"\n== {what}", flush=True)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env={**os.environ, **environment}, check=False
    )
    return done.returncode == 0, time.monotonic() - start


def counts(report: Path) -> dict[str, int]:
    """Tests passed, failed, skipped, from a JUnit file; one failure where there is none."""
    if not report.exists():
        return {"passed": 0, "failed": 1, "skipped": 0}
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    skipped = int(suite.get("skipped", 0))
    return {
        "passed": int(suite.get("tests", 0)) - failed - skipped,
        "failed": failed,
        "skipped": skipped,
    }


def main() -> int:
    start = time.monotonic()
    (ROOT / "build").mkdir(exist_ok=True)
    rows: list[tuple[str, dict[str, int], float]] = []
    for what, command in (
        ("lint", ("ruff", "check", ".")),
        ("format", ("ruff", "format", "--check", ".")),
        ("types", ("mypy",)),
    ):
        good, seconds = run(what, *command)
        rows.append((what, {"passed": int(good), "failed": int(not good), "skipped": 0}, seconds))
    for backend in BACKENDS:
        report = ROOT / "build" / f"tests-{backend}.xml"
        report.unlink(missing_ok=True)
        good, seconds = run(
            f"tests and doctests on {backend}",
            *("pytest", f"--junitxml={report}", "--durations=5", *sys.argv[1:]),
            KERAS_BACKEND=backend,
            TF_CPP_MIN_LOG_LEVEL="3",
        )
        found = counts(report)
        if not good and not found["failed"]:
            found["failed"] = 1  # a crash, or nothing collected
        rows.append((backend, found, seconds))

    print("\n== summary")
    for what, found, seconds in rows:
        print(f"{what:12s}", *(f"{n:5d} {kind}" for kind, n in found.items()), f"{seconds:6.0f} s")
    total = {kind: sum(found[kind] for _, found, _ in rows) for kind in rows[0][1]}
    print(f"{'together':12s}{'':39s}{time.monotonic() - start:6.0f} s")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
