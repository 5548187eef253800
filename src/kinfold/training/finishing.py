"""The end of a run: measure the best model on the test classes, write report and metrics."""

import time
from collections.abc import Callable

import keras

from kinfold.core import files
from kinfold.datasets import Splits
from kinfold.training import (
    deciding,
    evaluation,
    results,
    run_folder,
    sampling,
    sources,
    unreadable,
    verdicts,
)
from kinfold.training.evaluation import Table
from kinfold.training.progress import Progress
from kinfold.training.records import Config
from kinfold.training.report import write_report
from kinfold.training.run_folder import RunFolder


def finish(
    folder: RunFolder,
    config: Config,
    splits: Splits,
    untrained: Callable[[], keras.Model],
    progress: Progress,
    seconds: dict[str, float],
) -> Table:
    """Measure, write and tell.

    Args:
        folder: of the run, with its checkpoint.
        config: of the run.
        splits: examples to train on, to choose the best model by, and to test on.
        untrained: makes the network before training.
        progress: what is told to the user.
        seconds: how long each part of the run took; those of this one are added.

    Returns:
        The table of metrics.
    """
    start = time.monotonic()
    settings, test = config.settings, splits[2]
    checkpoint = run_folder.read_checkpoint(folder.checkpoint)
    progress.note("Measuring on the test classes.")
    before_training, encoder = untrained(), untrained()
    evaluation.assign(encoder.variables, checkpoint.best_weights)
    told = progress.embedding("the test examples")
    found = evaluation.embed_by([before_training, encoder], test.x, told)
    test, (before, trained) = sampling.readable(test, *found)
    unreadable.tell(folder, splits, progress)
    sample = sampling.sample_of(test)
    table, gain, sampled = evaluation.measure(
        test, before, trained, lambda: sample.raw, sample.rows
    )
    shown = trained[sample.rows]
    del found, before, trained  # of the whole test; the report shows a sample
    facts = results.facts(config, splits, checkpoint)
    if sampled is not None:
        facts["sample"] = results.sampled(sample.rows, len(test), sampled)
    facts["threshold"] = deciding.calibrated(folder, splits[1], sample)
    report = results.report(facts, splits, checkpoint, (table, gain), encoder, sample, shown)
    write_report(folder.report, report)
    seconds["training"] = checkpoint.seconds
    seconds["evaluation"] = time.monotonic() - start
    files.write_json(folder.metrics, {**table, "gain": gain, **facts, "seconds": seconds})
    noun = "characters" if settings.data == sources.GLYPHS else "classes"
    seen = verdicts.seen_in_training(splits[0], test, noun)
    lines = [
        f"On {verdicts.describe(test)}, {seen}; the model of epoch {checkpoint.best_epoch} of "
        f"{settings.epochs}:",
        verdicts.table_text(table, gain),
        verdicts.sampled_text(facts.get("sample")),
        facts["note"],
        facts["threshold"].get("said", ""),
        f"Model, metrics and report are in {folder.path}; open {folder.report}",
    ]
    progress.note("\n".join(line for line in lines if line))
    return table
