"""What a report is made from, and what must hold of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from kinfold.datasets import Split
    from kinfold.training.evaluation import Gain

BEST = ("trained", "start", "raw")


@dataclass(frozen=True)
class Report:
    """Everything a report shows.

    Args:
        title: the name of the data, such as `"glyphs"`.
        settings: how the model was made (command, loss, versions, seed, counts).
        table: rows `"pixels"` (of images) or `"raw"`, `"untrained"`, `"trained"`, each with a value
            for every metric.
        history: columns by name: `"epoch"`, `"loss"`, `"val_recall@1"` and so on, one value per
            epoch. Empty columns and values that are not finite are allowed.
        test: the examples searched, `test.x` [n, ...], `test.y` [n], of held-out classes. Where it
            has `files`, the name of each example, they are shown.
        embeddings: floating [n, d], unit norm, of `test.x` by the network of the best epoch, whose
            row of the table is "trained", whatever was kept.
        baseline: floating [n, p], unit norm, the raw pixels or vectors.
        gain: over the raw input, as `evaluation.gain` gives it; empty if it is not known.
        warning: what went wrong in training, shown above its curves; "" where nothing did.
        threshold: what the threshold of the run does, in words; "" where it has none.
        best: what did best on the validation classes and was kept: `"trained"`, a network of some
            epoch; `"start"`, the network before training; `"raw"`, the raw input.
        best_epoch: the epoch whose model was kept, marked in the curves.
        validation_baseline: the metrics of the raw input on the validation classes, named as in
            `history`, such as `{"val_recall@1": 0.9}`; drawn beside the curves.
        others: further splits by name, each with its embeddings: `{"training": (split, floating
            [m, d], unit norm)}`. The test is searched for near-duplicates of their examples.
    """

    title: str
    settings: dict[str, object]
    table: dict[str, dict[str, float]]
    history: dict[str, list[float]]
    test: Split
    embeddings: np.ndarray
    baseline: np.ndarray
    gain: Gain = field(default_factory=dict)
    warning: str = ""
    threshold: str = ""
    best: str = "trained"
    best_epoch: int | None = None
    validation_baseline: Mapping[str, float] = field(default_factory=dict)
    others: Mapping[str, tuple[Split, np.ndarray]] = field(default_factory=dict)


def check(report: Report) -> None:
    """Raise ValueError where a report cannot be written."""
    n = len(report.test.x)
    if n == 0 or len(report.test.y) != n:
        raise ValueError(
            f"A report needs at least one example and a label for each. Received {n} examples and "
            f"{len(report.test.y)} labels."
        )
    if report.best not in BEST:
        raise ValueError(f"`best` must be one of {', '.join(BEST)}. Received {report.best!r}.")
    _check_rows("embeddings", report.embeddings, n)
    _check_rows("baseline", report.baseline, n)
    width = np.shape(report.embeddings)[1]
    for name, (split, vectors) in report.others.items():
        _check_rows(f"others[{name!r}]", vectors, len(split.y), width)
        if np.shape(split.x)[1:] != np.shape(report.test.x)[1:]:
            raise ValueError(
                f"`others[{name!r}]` must hold examples of the same shape as the test, "
                f"{np.shape(report.test.x)[1:]}. Received {np.shape(split.x)[1:]}."
            )


def _check_rows(name: str, vectors: np.ndarray, n: int, width: int | None = None) -> None:
    shape = np.shape(vectors)
    if len(shape) != 2 or shape[0] != n or shape[1] == 0 or (width or shape[1]) != shape[1]:
        raise ValueError(
            f"`{name}` must have shape [{n}, {width or 'd'}], one row per example. "
            f"Received {shape}."
        )
    if not np.isfinite(vectors).all():
        raise ValueError(f"`{name}` must be finite. Received NaN or infinite values.")
