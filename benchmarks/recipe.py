"""What a choice of the default recipe changes on unseen classes, paired by seed.

The two trainings of a seed begin with the same weights and see the same batches. Each is measured
after its last epoch, so that nothing is chosen by a validation set.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import hard_negatives, machine, options
from benchmarks.tables import table

HELP = "unseen classes found, with Keras's gradient of the Circle loss and with the paper's"
EPOCHS, STEPS, SEEDS = 6, 50, 4
WAYS: dict[str, dict[str, Any]] = {
    "keras": {"detach_weights": False},
    "paper": {"detach_weights": True},
}

Row = dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"pairs of trainings ({SEEDS})")
    parser.add_argument(
        "--icons", type=Path, help="a font of icons, to train on too; npm has one as @mdi/font"
    )
    options.add_out(parser)


def main(arguments: Namespace, parser: ArgumentParser) -> None:
    """Run the command; `parser` tells what is wrong with the options."""
    if arguments.seeds < 1:
        parser.error("--seeds must be at least 1")
    print(report(run(range(arguments.seeds), arguments.icons, arguments.out)))


def run(seeds: Sequence[int], icons: Path | None, out: Path) -> Row:
    """Train what is left of the pairs, and write recipe.json after each training."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # before the first import of Keras
    path = out / "recipe.json"
    rows = machine.rows_in(path)
    record: Row = {"benchmark": "recipe", "epochs": EPOCHS, "steps": STEPS, **machine.describe()}
    record["rows"] = rows
    sets = hard_negatives.data_sets(icons)
    jobs = (
        {"data": name, "seed": seed, "gradient": way}
        for seed in seeds
        for name in sets
        for way in WAYS
    )
    for job in machine.left(jobs, rows):
        loss_options = WAYS[job["gradient"]]
        found = hard_negatives.train(
            *sets[job["data"]], job["seed"], False, EPOCHS, STEPS, loss_options
        )
        rows.append({**job, **found})
        machine.write(path, record)
    return record


def report(record: Row) -> str:
    """The means of both, and the paired difference with its 95 % interval."""
    lines = []
    for name in dict.fromkeys(row["data"] for row in record["rows"]):
        by = {(row["seed"], row["gradient"]): row for row in record["rows"] if row["data"] == name}
        seeds = [seed for seed, way in by if way == "keras" and (seed, "paper") in by]
        for metric in hard_negatives.METRICS:
            values = np.array([[by[seed, way][metric] for way in WAYS] for seed in seeds])
            mean, low, high = hard_negatives.interval(values[:, 1] - values[:, 0])
            bounds = "" if low is None else f"{low:+.4f} to {high:+.4f}"
            means = [f"{value:.4f}" for value in values.mean(axis=0)]
            lines.append((name, metric, len(seeds), *means, f"{mean:+.4f}", bounds))
    head = ("data", "metric", "seeds", "Keras's", "the paper's", "difference", "95 % interval")
    return "\n".join((
        f"Circle loss, margin 0.25, {record['epochs']} epochs of {record['steps']} steps, unseen "
        f"classes, last epoch; {record['device']['cpu']}; {record['date']}",
        "",
        table(head, lines, left=(0, 1)),
    ))  # fmt: skip
