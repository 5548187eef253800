"""Runs the trainings, goes on where it was stopped, and shows the result."""

import os
import sys
from pathlib import Path
from time import perf_counter

from benchmarks import machine, measure
from benchmarks.quality import picture, recipes, results


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
