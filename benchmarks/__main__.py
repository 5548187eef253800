"""`python -m benchmarks losses`: measure, print the tables, write JSON and plots."""

import argparse
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import losses, machine, measure, plots, tables, targets

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("losses", help="Circle loss, ours and the peers'")
    command.add_argument("--quick", action="store_true", help=f"batches {losses.QUICK} only")
    command.add_argument("--backends", default=",".join(losses.BACKENDS), help="comma-separated")
    command.add_argument("--out", type=Path, help="folder (with --quick build/benchmarks)")
    arguments = parser.parse_args()
    backends = tuple(arguments.backends.split(","))
    if unknown := set(backends) - set(losses.BACKENDS):
        parser.error(f"unknown backend {sorted(unknown)[0]!r}; known: {', '.join(losses.BACKENDS)}")
    default = Path("build/benchmarks") if arguments.quick else RESULTS
    run_losses(backends, arguments.quick, arguments.out or default)


def run_losses(backends: tuple[str, ...], quick: bool, out: Path) -> None:
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    record = {"benchmark": "losses", **machine.describe()}
    jobs = list(losses.jobs(backends, quick))
    start = perf_counter()
    for number, job in enumerate(jobs, 1):
        names = ", ".join(f"{name} {kind}" for name, kind in job["steps"])
        print(
            f"[{perf_counter() - start:4.0f} s] {number}/{len(jobs)} {job['backend']}, "
            f"batch {job['batch']}, {names}",
            file=sys.stderr,
            flush=True,
        )
        for row in measure.in_subprocess(job):
            key = tuple(row[name] for name in ("backend", "batch", "implementation", "step"))
            rows.setdefault(key, {}).update(row)
        record["rows"] = list(rows.values())
        record["seconds"] = round(perf_counter() - start)
        record["targets"] = targets.targets(record["rows"])
        machine.write(out / "losses.json", record)  # at every step: nothing is lost on a crash
    print(tables.report(record))
    for path in plots.draw(record["rows"], out):
        print(path)


if __name__ == "__main__":
    main()
