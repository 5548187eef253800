"""One HTML file that shows how well an embedding finds classes it never saw in training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from kinfold.datasets import Split
    from kinfold.evaluation import Gain

__all__ = ["Report", "write_report"]


@dataclass(frozen=True)
class Report:
    """Everything a report shows.

    Args:
        title: the name of the data, such as `"glyphs"`.
        settings: how the model was made (command, loss, versions, seed, counts).
        table: rows `"pixels"` (or `"raw"`, of vectors), `"untrained"`, `"trained"`, each with a
            value for every metric.
        history: columns by name: `"epoch"`, `"loss"`, `"val_recall@1"` and so on, one value an
            epoch. Empty columns and values that are not finite are allowed.
        test: the examples searched, `test.x` [n, ...], `test.y` [n], of held-out classes.
        embeddings: floating [n, d], unit norm, of `test.x` by the trained model.
        baseline: floating [n, p], unit norm, the raw pixels or vectors.
        gain: of the trained model over the raw input, as `kinfold.evaluation.gain` gives it.
        warning: what went wrong in training, shown above its curves; "" where nothing did.
        best: the candidate that was kept: "trained" (of an epoch), "start" (the network before
            training) or "raw" (the raw input). `embeddings` are of the best epoch in any case.
        best_epoch: the epoch that was kept, counted from 1; None if none was.
        validation_baseline: the raw input on the validation classes, by column of `history`.
        others: "training" and "validation": a split and its embeddings, or a sample of them.
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
    best: str = "trained"
    best_epoch: int | None = None
    validation_baseline: Mapping[str, float] = field(default_factory=dict)
    others: Mapping[str, tuple[Split, np.ndarray]] = field(default_factory=dict)


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Write the report as one HTML file that asks for nothing from outside itself.

    The file is written beside `path` and renamed, so that a crash leaves the old file whole.

    Args:
        path: where the file goes; its folder exists.
        report: what to show, see `Report`.

    Raises:
        ValueError: if the embeddings or the baseline are not finite, or have not a row an example.
        ImportError: if matplotlib, pillow or scikit-learn is missing.

    Example:

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from kinfold.datasets import Split
    >>> x = np.eye(4, dtype="float32")
    >>> test = Split(x, np.array([0, 0, 1, 1], "int32"), ("one", "two"))
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "report.html"
    >>> write_report(path, Report("example", {}, {"trained": {"recall@1": 1.0}}, {}, test, x, x))
    >>> path.read_text(encoding="utf-8").splitlines()[0]
    '<!doctype html>'
    """
    n = len(report.test.x)
    if n == 0 or len(report.test.y) != n:
        raise ValueError(
            f"A report needs at least one example and a label for each. Received {n} examples and "
            f"{len(report.test.y)} labels."
        )
    for name, vectors in (("embeddings", report.embeddings), ("baseline", report.baseline)):
        shape = np.shape(vectors)
        if len(shape) != 2 or shape[0] != n or shape[1] == 0:
            raise ValueError(
                f"`{name}` must have shape [{n}, d], a row an example. Received {shape}."
            )
        if not np.isfinite(vectors).all():
            raise ValueError(f"`{name}` must be finite. Received NaN or infinite values.")
    try:
        import matplotlib  # noqa: F401
        import PIL  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"The report needs matplotlib, pillow and scikit-learn, and {error.name} is missing: "
            "pip install kinfold[train]"
        ) from error
    from kinfold.report.page import render

    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Names that are not valid UTF-8 (file names may be anything) must not lose the report.
        with open(beside, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(render(report))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
