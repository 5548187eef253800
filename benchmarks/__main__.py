"""`python -m benchmarks losses`, `quality`, `chunks`, `memory` or `gpu`: measure, print, write."""

import argparse
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import (
    chunks,
    gpu_run,
    losses,
    machine,
    measure,
    memory,
    plots,
    survey,
    tables,
    targets,
)
from benchmarks.quality import recipes, run

RESULTS = Path(__file__).resolve().parent / "results"
STEPS = 150  # of a training of the quality benchmark


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("losses", help="Circle loss, ours and the peers'")
    extent = command.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help=f"batches {losses.QUICK} only")
    extent.add_argument("--all", action="store_true", help="every loss, beside its namesakes")
    command.add_argument("--backends", default=",".join(losses.BACKENDS), help="comma-separated")
    command.add_argument("--out", type=Path, help="folder (with --quick build/benchmarks)")
    command = commands.add_parser("quality", help="unseen characters found, ours and the peer's")
    command.add_argument("--steps", type=int, default=STEPS, help=f"of a training ({STEPS})")
    command.add_argument("--seeds", type=int, default=3, help="trainings of each loss (3)")
    command.add_argument("--losses", help="comma-separated (all)")
    command.add_argument("--out", type=Path, default=RESULTS, help="folder")
    command = commands.add_parser("chunks", help="memory of a training step, whole and in chunks")
    command.add_argument("--backends", default=",".join(losses.BACKENDS), help="comma-separated")
    command.add_argument("--backbone", default=chunks.BACKBONE, help=f"({chunks.BACKBONE})")
    command.add_argument("--side", type=int, default=chunks.SIDE, help=f"pixels ({chunks.SIDE})")
    command.add_argument("--chunk", type=int, default=chunks.CHUNK, help=f"images ({chunks.CHUNK})")
    command.add_argument("--batches", default=",".join(map(str, chunks.BATCHES)), help="of both")
    command.add_argument(
        "--largest", type=int, default=chunks.LARGEST, help="batch, in chunks only"
    )
    command.add_argument(
        "--memory", type=float, default=chunks.MEMORY, help="GiB a process may take"
    )
    command.add_argument("--out", type=Path, default=RESULTS, help="folder")
    command = commands.add_parser("memory", help="a step with a memory of earlier batches")
    command.add_argument("--backends", default=",".join(losses.BACKENDS), help="comma-separated")
    command.add_argument("--out", type=Path, default=RESULTS, help="folder")
    command = commands.add_parser("gpu", help="the fused kernels and their peers, on a GPU")
    command.add_argument("--quick", action="store_true", help="d = 512 and three batches only")
    command.add_argument("--out", type=Path, default=RESULTS, help="folder")
    arguments = parser.parse_args()
    if arguments.command == "gpu":
        print(gpu_run.report(gpu_run.run(arguments.quick, arguments.out)))
        return
    if arguments.command == "quality":
        names = arguments.losses.split(",") if arguments.losses else list(recipes.LOSSES)
        if unknown := set(names) - set(recipes.LOSSES):
            known = ", ".join(recipes.LOSSES)
            parser.error(f"unknown loss {sorted(unknown)[0]!r}; known: {known}")
        if min(arguments.steps, arguments.seeds) < 1:
            parser.error("--steps and --seeds must be at least 1")
        run.run(names, arguments.steps, arguments.seeds, arguments.out)
        return
    backends = tuple(arguments.backends.split(","))
    if unknown := set(backends) - set(losses.BACKENDS):
        parser.error(f"unknown backend {sorted(unknown)[0]!r}; known: {', '.join(losses.BACKENDS)}")
    if arguments.command == "memory":
        print(memory.report(memory.run(backends, arguments.out)))
        return
    if arguments.command == "chunks":
        settings = {
            "backbone": arguments.backbone,
            "side": arguments.side,
            "chunk": arguments.chunk,
            "batches": [int(batch) for batch in arguments.batches.split(",")],
            "largest": arguments.largest,
            "memory_gib": arguments.memory,
        }
        print(chunks.report(chunks.run(backends, arguments.out, settings)))
        return
    default = Path("build/benchmarks") if arguments.quick else RESULTS
    if arguments.all:
        print(survey.report(survey.run(backends, arguments.out or RESULTS)))
    else:
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
