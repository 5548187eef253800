"""What has to hold before a change lands; prints one closing summary with the counts.

`check.py core` checks the code and tests what is computed, `check.py peers` tests the names and
numbers of other libraries, `check.py runs` whole runs, `check.py changed` what differs from main;
without one it does all. More arguments go to pytest.
"""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import changed

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("jax", "tensorflow", "torch")
# Whole runs, of the command line, of processes and of the pages' code; core is what is in neither.
RUNS = (
    "benchmarks", "command_line", "distributed", "encoders", "serving", "shipping", "trained",
    "training", "test_examples.py", "test_readme.py",
)  # fmt: skip
PEERS = ("compat",)
# Each backend's tests run in this many processes, so that two cores end at about the same time.
PARTS = 2
MODES = ("core", "peers", "runs", "changed")
WHAT = sys.argv[1] if sys.argv[1:] and sys.argv[1] in MODES else ""
GIVEN = sys.argv[2:] if WHAT else sys.argv[1:]


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


def look(what: str, command: tuple[str, ...]) -> tuple[str, dict[str, int], float]:
    """Run a check of the code; return its row of the summary."""
    good, seconds = run(what, *command)
    return what, {"passed": int(good), "failed": int(not good), "skipped": 0}, seconds


def test(backend: str, part: int, files: list[str]) -> tuple[str, dict[str, int], float]:
    """Run a part of these test files on a backend; return its row of the summary.

    Tests marked `once` tell the same on any backend; they run on PyTorch, which compiles nothing.
    """
    name = f"{backend} {part + 1}/{PARTS}"
    report = ROOT / "build" / f"tests-{backend}-{part}.xml"
    report.unlink(missing_ok=True)
    good, seconds = run(
        f"tests and doctests on {name}",
        *("pytest", f"--junitxml={report}", "--durations=5"),
        *("-m", "not pages" if backend == "torch" else "not once and not pages"),
        *GIVEN,
        *files[part::PARTS],
        KERAS_BACKEND=backend,
        OMP_NUM_THREADS="1",  # two run at a time
    )
    found = counts(report)
    # Of -k circle, or of a change, a part may have no test.
    chosen = (GIVEN or WHAT == "changed") and report.exists()
    if not good and not found["failed"] and not chosen:
        found["failed"] = 1  # a crash, or nothing collected
    return name, found, seconds


def chosen_files() -> list[str]:
    """The test files asked for, and the folder of the doctests."""
    if WHAT == "changed":
        return changed.concerned(changed.changed_files(), (*RUNS, *PEERS))
    tests = ROOT / "tests"
    files = sorted(path.relative_to(tests) for path in tests.rglob("test_*.py"))
    rooms = {"runs": RUNS, "peers": PEERS}
    chosen = {
        what: [str(Path("tests", path)) for path in files if path.parts[0] in rooms[what]]
        for what in rooms
    }
    others = {file for those in chosen.values() for file in those}
    paths = [str(Path("tests", path)) for path in files]
    chosen["core"] = ["src", *(file for file in paths if file not in others)]
    return chosen.get(WHAT, ["src", *paths])


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
    code = (
        ("lint", ("ruff", "check", ".")),
        ("format", ("ruff", "format", "--check", ".")),
        ("types", ("mypy",)),
    )
    code = () if WHAT in ("peers", "runs") else code
    rows += [look(*given) for given in code[:2]]
    print("\n== tests, two parts at a time; each is shown when it is done", flush=True)
    files = chosen_files()
    if WHAT == "changed":
        targets = changed.targets_of(changed.changed_files())
        print("of", *files, "\nthen make", *(targets or ["nothing more"]), flush=True)
    parts = range(min(PARTS, len(files)))
    jobs = [(backend, part, files) for backend in BACKENDS for part in parts]
    with ThreadPoolExecutor(max_workers=2) as pool:
        tested = pool.map(lambda job: test(*job), jobs)
        rows += pool.map(lambda given: look(*given), code[2:])  # takes longer, so beside the tests
        rows += tested

    print("\n== summary")
    for what, found, seconds in rows:
        print(f"{what:14s}", *(f"{n:5d} {kind}" for kind, n in found.items()), f"{seconds:6.0f} s")
    total = {kind: sum(found[kind] for _, found, _ in rows) for kind in rows[0][1]}
    print(f"{'together':14s}{'':39s}{time.monotonic() - start:6.0f} s")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
