"""Everything that has to hold before a change lands; prints one closing summary with the counts."""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("jax", "tensorflow", "torch")


def run(what: str, *command: str, **environment: str) -> tuple[bool, float]:
    """Run a module of this Python; print what it said; return whether it succeeded, and seconds."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(f"\n== {what}\n{done.stdout}", flush=True)
    return done.returncode == 0, time.monotonic() - start


def test(backend: str) -> tuple[str, dict[str, int], float]:
    """Run the tests and doctests on a backend; return its row of the summary."""
    report = ROOT / "build" / f"tests-{backend}.xml"
    report.unlink(missing_ok=True)
    good, seconds = run(
        f"tests and doctests on {backend}",
        *("pytest", f"--junitxml={report}", "--durations=5", *sys.argv[1:]),
        KERAS_BACKEND=backend,
        OMP_NUM_THREADS="1",  # two run at a time
    )
    found = counts(report)
    if not good and not found["failed"]:
        found["failed"] = 1  # a crash, or nothing collected
    return backend, found, seconds


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
    print("\n== tests, two backends at a time; each is shown when it is done", flush=True)
    with ThreadPoolExecutor(max_workers=2) as pool:
        rows += pool.map(test, BACKENDS)

    print("\n== summary")
    for what, found, seconds in rows:
        print(f"{what:12s}", *(f"{n:5d} {kind}" for kind, n in found.items()), f"{seconds:6.0f} s")
    total = {kind: sum(found[kind] for _, found, _ in rows) for kind in rows[0][1]}
    print(f"{'together':12s}{'':39s}{time.monotonic() - start:6.0f} s")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
