"""What a run writes at its end: the facts of its metrics, and its report."""

import dataclasses
import importlib
import platform
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kinfold
from kinfold.datasets import Split
from kinfold.training import evaluation, raw_input, run_folder, verdicts
from kinfold.training.evaluation import Gain, Table
from kinfold.training.records import Config
from kinfold.training.report import Report
from kinfold.training.run_folder import Checkpoint
from kinfold.training.sampling import Sample
from kinfold.training.sources import Splits

_BYTES = 1 << 26  # of such examples
MOST = 5000  # examples of a split that are compared with those of the others


def versions() -> dict[str, str]:
    """The versions of what computes here."""
    backend = keras.backend.backend()
    return {
        "kinfold": kinfold.__version__,
        "keras": keras.__version__,
        backend: importlib.import_module(backend).__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def counts(split: Split) -> dict[str, int]:
    """How much a split holds."""
    return {"classes": len(split.names), "examples": len(split)}


def facts(config: Config, splits: Splits, checkpoint: Checkpoint) -> dict[str, Any]:
    """What the metrics say besides the table."""
    settings = config.settings
    last = {name: values[checkpoint.best_epoch - 1] for name, values in checkpoint.history.items()}
    return {
        "data": settings.data,
        "command": config.command,
        "versions": versions(),
        "backend": keras.backend.backend(),
        "seed": settings.seed,
        "counts": {
            name: counts(split) for name, split in zip(run_folder.SPLITS, splits, strict=True)
        },
        "scaling": config.scaling.get_config() if config.scaling else None,
        "epochs": checkpoint.epochs,
        "best_epoch": checkpoint.best_epoch,
        "best": checkpoint.best,
        "validation": {
            **checkpoint.baseline,
            "trained": {name: value for name, value in last.items() if name.startswith("val_")},
        },
        "note": verdicts.kept_text(checkpoint.best, checkpoint.scores, checkpoint.epochs),
        "finished": settings.is_done(checkpoint.epochs, checkpoint.best_epoch),
        "collapse": checkpoint.collapse,
        "settings": dataclasses.asdict(settings),
    }


def report(
    facts: dict[str, Any],
    splits: Splits,
    checkpoint: Checkpoint,
    measured: tuple[Table, Gain],
    encoder: keras.Model,
    sample: Sample,
    embeddings: np.ndarray,
) -> Report:
    """Gather all that the report shows; the encoder is that of the best epoch.

    `sample` holds the test examples that are shown, and `embeddings` are of these.
    """
    train, validation, test = splits
    few = verdicts.few_classes(train, test)
    best = checkpoint.best
    kept = {"raw": "the raw input", "start": "the network before training"}
    others = {"training": some(train), "validation": some(validation)}
    shown = {
        "command": facts["command"],
        **facts["settings"],
        **{f"{name} version": version for name, version in facts["versions"].items()},
        **{
            name: verdicts.describe(split)
            for name, split in zip(run_folder.SPLITS, splits, strict=True)
        },
        "epochs done": checkpoint.epochs,
        "best epoch": checkpoint.best_epoch,
        "model kept": kept.get(best),
        "values of images": facts["scaling"] and facts["scaling"]["kind"],
        "compared across splits": "; ".join(
            f"{len(part):,} of {len(whole):,} {name} examples"
            for (name, part), whole in zip(others.items(), (train, validation), strict=True)
            if len(part) < len(whole)
        ),
        "test examples shown": ""
        if sample.is_all
        else f"{len(sample.rows):,} of {sample.whole:,}, drawn at random by class",
    }
    return Report(
        Path(facts["data"]).stem,
        {name: value for name, value in shown.items() if value not in (None, "")},
        measured[0],
        checkpoint.history,
        sample.split,
        raw_input.unit_rows(embeddings),
        sample.raw,
        measured[1],
        " ".join(
            text
            for text in (
                facts["note"],
                few,
                checkpoint.collapse,
                verdicts.sampled_text(facts.get("sample")),
            )
            if text
        ),
        threshold=facts["threshold"].get("said", ""),
        best=best,
        best_epoch=checkpoint.best_epoch if best == "trained" else None,
        validation_baseline=checkpoint.baseline.get("raw", {}),
        others={
            name: (part, raw_input.unit_rows(evaluation.embed(encoder, part.x)))
            for name, part in others.items()
        },
    )


def sampled(
    rows: np.ndarray, whole: int, trained: dict[str, float] | None
) -> dict[str, Any] | None:
    """What the metrics say of rows that stand for the whole test beside the raw input.

    None where the raw input was measured on all, and `trained` is None.
    """
    return None if trained is None else {"examples": len(rows), "of": whole, "trained": trained}


def some(split: Split) -> Split:
    """At most `MOST` examples of a split, in memory, drawn at random but always the same."""
    most = max(20, min(MOST, _BYTES // int(np.prod(split.x.shape[1:]))))
    rows = np.arange(len(split))
    if len(split) > most:
        rows = np.sort(np.random.default_rng(0).choice(len(split), most, replace=False))
    cut: dict[str, Any] = {"x": split.x[rows], "y": split.y[rows]}
    if split.files is not None:
        cut["files"] = tuple(split.files[row] for row in rows)
    return dataclasses.replace(split, **cut)
