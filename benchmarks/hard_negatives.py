"""What `--hard-negatives` changes on unseen classes, at equal steps and paired by seed.

The two trainings of a seed have the same weights at the start, the same first epoch and equally
many steps. Each is measured after its last epoch, so that nothing is chosen by a validation set.
The interval is of the mean difference over seeds, by Student's t: it holds 95 % of such intervals'
means, where the differences are normal. It says nothing of other data.
"""

import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks import machine, options
from benchmarks.tables import table

HELP = "unseen classes found, with and without hard negatives"
EPOCHS, STEPS, FIRST, SEEDS = 6, 50, 0, 6
METRICS = ("map@r", "recall@1")

Row = dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"({EPOCHS})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of an epoch ({STEPS})")
    parser.add_argument("--first-seed", type=int, default=FIRST, help=f"({FIRST})")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"pairs of trainings ({SEEDS})")
    parser.add_argument(
        "--icons", type=Path, help="a font of icons, to train on too; npm has one as @mdi/font"
    )
    parser.add_argument(
        "--characters", type=Path, help="a folder of Chinese fonts, to train on their characters"
    )
    options.add_out(parser)


def main(arguments: Namespace, parser: ArgumentParser) -> None:
    """Run the command; `parser` tells what is wrong with the options."""
    if min(arguments.epochs, arguments.steps, arguments.seeds) < 1 or arguments.first_seed < 0:
        parser.error("--epochs, --steps and --seeds must be at least 1, and --first-seed 0")
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    sets = {"icons": arguments.icons, "characters": arguments.characters}
    print(report(run(arguments.epochs, arguments.steps, seeds, sets, arguments.out)))


def run(
    epochs: int, steps: int, seeds: Sequence[int], fonts: dict[str, Path | None], out: Path
) -> Row:
    """Train what is left of the pairs, and write hard_negatives.json after each training."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # before the first import of Keras
    path = out / "hard_negatives.json"
    record: Row = {"benchmark": "hard_negatives", "epochs": epochs, "steps": steps}
    record |= {**machine.describe(), "data": {}, "rows": kept(path, epochs, steps)}
    for name, (training, test) in data_sets(fonts).items():
        sizes = {"training_images": len(training), "training_classes": len(training.names)}
        sizes |= {"test_images": len(test), "test_classes": len(test.names)}
        record["data"][name] = sizes
        jobs = [
            {"data": name, "seed": seed, "hard_negatives": hard}
            for seed in seeds
            for hard in (False, True)
        ]
        for job in machine.left(jobs, record["rows"]):
            found = train(training, test, job["seed"], job["hard_negatives"], epochs, steps)
            record["rows"].append({**job, **found})
            record["summary"] = summary(record["rows"])
            machine.write(path, record)
    return record


def kept(path: Path, epochs: int, steps: int) -> list[Row]:
    """The trainings of an earlier run with the same epochs and steps."""
    if not path.exists():
        return []
    before = json.loads(path.read_text(encoding="utf-8"))
    same = (before["epochs"], before["steps"]) == (epochs, steps)
    return before["rows"] if same else []


def data_sets(fonts: dict[str, Path | None]) -> dict[str, Any]:
    """By name what is trained and tested on: glyphs, and what is drawn from the fonts given."""
    from benchmarks.characters import characters
    from benchmarks.icons import icons
    from kinfold.datasets import glyphs

    drawn = {"icons": icons, "characters": characters}
    given = {name: drawn[name](path) for name, path in fonts.items() if path is not None}
    return {"glyphs": glyphs(), **given}


def train(
    training: Any,
    test: Any,
    seed: int,
    hard: bool,
    epochs: int,
    steps: int,
    loss_options: dict[str, Any] | None = None,
) -> Row:
    """Train as `kinfold train` does, and measure the last epoch on the test classes."""
    from kinfold.metrics import retrieval_metrics
    from kinfold.training import evaluation
    from kinfold.training.devices import Devices
    from kinfold.training.hard_negatives import HardNegatives
    from kinfold.training.progress import Progress
    from kinfold.training.settings import Settings

    settings = Settings(
        "", epochs=epochs, steps_per_epoch=steps, seed=seed, loss_options=loss_options
    )
    encoder = settings.make_encoder(training.x.shape[1:])
    batches = settings.make_batches(training)
    trainer = settings.make_trainer(encoder, len(training.names))
    mining = [HardNegatives(encoder, training, batches, Devices(), Progress())] if hard else []
    start = perf_counter()
    trainer.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=mining)
    seconds = perf_counter() - start
    found = retrieval_metrics(evaluation.embed(encoder, test.x), test.y, metrics=METRICS)
    return {**found, "seconds": round(seconds, 1)}


def summary(rows: Sequence[Row]) -> list[Row]:
    """Of each set of data and metric, the means and the paired difference with its interval."""
    found = []
    for data in dict.fromkeys(row["data"] for row in rows):
        pairs = pairs_of([row for row in rows if row["data"] == data])
        for metric in METRICS if pairs else ():
            values = np.array([[one[metric] for one in pair] for pair in pairs])
            mean, low, high = interval(values[:, 1] - values[:, 0])
            found.append({
                "data": data, "metric": metric, "seeds": len(pairs),
                "without": float(values[:, 0].mean()), "with": float(values[:, 1].mean()),
                "difference": mean, "low": low, "high": high,
            })  # fmt: skip
    return found


def pairs_of(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Without and with hard negatives, of each seed that has both."""
    by = {(row["seed"], row["hard_negatives"]): row for row in rows}
    seeds = dict.fromkeys(row["seed"] for row in rows)
    return [(by[s, False], by[s, True]) for s in seeds if {(s, False), (s, True)} <= set(by)]


def interval(differences: np.ndarray) -> tuple[float, float | None, float | None]:
    """The mean, and the 95 % interval of the mean by Student's t; None of one difference alone."""
    from scipy import stats  # which scikit-learn brings

    mean, count = float(differences.mean()), len(differences)
    if count < 2:
        return mean, None, None
    wide = stats.t.ppf(0.975, count - 1) * differences.std(ddof=1) / np.sqrt(count)
    return mean, float(mean - wide), float(mean + wide)


def report(record: Row) -> str:
    """Everything that the terminal shows."""
    device, lines = record["device"], []
    for one in record.get("summary", []):
        bounds = "" if one["low"] is None else f"{one['low']:+.4f} to {one['high']:+.4f}"
        numbers = [f"{one['without']:.4f}", f"{one['with']:.4f}", f"{one['difference']:+.4f}"]
        lines.append((one["data"], one["metric"], one["seeds"], *numbers, bounds))
    head = ("data", "metric", "seeds", "without", "with", "difference", "95 % interval")
    seeds = [
        (row["data"], row["seed"], "with" if row["hard_negatives"] else "without",
         *(f"{row[metric]:.4f}" for metric in METRICS), f"{row['seconds']:.0f}")
        for row in record["rows"]
    ]  # fmt: skip
    return "\n".join((
        f"Circle loss, {record['epochs']} epochs of {record['steps']} steps, unseen classes, last "
        f"epoch; {device['cpu']}, {device['cores']} cores; {record['date']}",
        "",
        table(("data", "seed", "negatives", *METRICS, "seconds"), seeds, left=(0, 2)),
        "",
        table(head, lines, left=(0, 1)),
    ))  # fmt: skip
