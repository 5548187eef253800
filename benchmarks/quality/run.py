"""Runs the trainings, goes on where it was stopped, and shows the result."""

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from time import perf_counter

from benchmarks import machine, measure, options
from benchmarks.quality import picture, recipes, results

HELP = "unseen characters found, ours and the peer's"
STEPS, SEEDS = 150, 3


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of a training ({STEPS})")
    parser.add_argument(
        "--seeds", type=int, default=SEEDS, help=f"trainings of each loss ({SEEDS})"
    )
    parser.add_argument("--losses", help="comma-separated (all)")
    options.add_out(parser)


def main(arguments: Namespace, parser: ArgumentParser) -> None:
    """Run the command; `parser` tells what is wrong with the options."""
    names = arguments.losses.split(",") if arguments.losses else list(recipes.LOSSES)
    if unknown := set(names) - set(recipes.LOSSES):
        known = ", ".join(recipes.LOSSES)
        parser.error(f"unknown loss {sorted(unknown)[0]!r}; known: {known}")
    if min(arguments.steps, arguments.seeds) < 1:
        parser.error("--steps and --seeds must be at least 1")
    run(names, arguments.steps, arguments.seeds, arguments.out)


def run(names: list[str], steps: int, seeds: int, out: Path) -> None:
    """Train what is left of the jobs, write quality.json after each, print the table."""
    os.environ["KERAS_BACKEND"] = "torch"  # before the first import of Keras
    from benchmarks.quality import training
    from kinfold.datasets import glyphs

    start = perf_counter()

    def say(text: str) -> None:
        print(f"[{perf_counter() - start:4.0f} s] {text}", file=sys.stderr, flush=True)

    path = out / "quality.json"
    record = {"benchmark": "quality", "steps": steps, **machine.describe()}
    runs = {results.key(run): run for run in results.resumed(path, record)}
    for name in names:
        if not recipes.LOSSES[name][0].exists():
            say(f"{name} left out: not in kinfold.losses")
    there = [name for name in names if recipes.LOSSES[name][0].exists()]
    jobs = recipes.jobs(there, seeds)
    if skipped := sum(job in runs for job in jobs):
        say(f"{skipped} of {len(jobs)} trainings are in {path} already")
    say("drawing the glyphs")
    splits = glyphs()
    sizes = {"test_images": len(splits[1]), "test_classes": len(splits[1].names)}
    record["data"] = {"training_images": len(splits[0]), **sizes}
    for number, job in enumerate(jobs, 1):
        if job in runs:
            continue
        name, implementation, seed = job
        say(f"{number}/{len(jobs)} {name}, {implementation}, seed {seed}")
        run = {"loss": name, "implementation": implementation, "seed": seed}
        try:
            run |= training.train(*job, steps, splits)
        except Exception as error:
            run["error"] = measure.reason(error)
        runs[job] = {**run, "commit": record["commit"]}
        machine.write(path, results.filled(record, runs.values()))  # nothing is lost on a crash
    print(results.report(results.filled(record, runs.values())))
    print(picture.draw(results.summary(runs.values()), out))
