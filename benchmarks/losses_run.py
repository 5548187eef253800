"""Measures Circle loss, or with --all every loss, beside the peers."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import losses, machine, measure, options, plots, survey, tables, targets

HELP = "Circle loss, ours and the peers'"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help=f"batches {losses.QUICK} only")
    extent.add_argument("--all", action="store_true", help="every loss, beside its namesakes")
    options.add_backends(parser)
    parser.add_argument("--out", type=Path, help="folder (with --quick build/benchmarks)")


def main(arguments: Namespace, parser: ArgumentParser) -> None:
    """Run the command; `parser` tells what is wrong with the options."""
    backends = options.backends(arguments, parser)
    default = Path("build/benchmarks") if arguments.quick else options.RESULTS
    out = arguments.out or default
    if arguments.all:
        print(survey.report(survey.run(backends, out)))
        return
    record = run(backends, arguments.quick, out)
    print(tables.report(record))
    for path in plots.draw(record["rows"], out):
        print(path)


def run(backends: Sequence[str], quick: bool, out: Path) -> dict[str, Any]:
    """Measure Circle loss, and write losses.json after every process."""
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
    return record
