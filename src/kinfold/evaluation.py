"""The table of a run: how well raw pixels, the untrained and the trained model find a class."""

from typing import Any

import keras
import numpy as np

from kinfold.datasets import Split
from kinfold.metrics import retrieval_metrics

ROWS = ("pixels", "untrained", "trained")
METRICS = ("recall@1", "recall@10", "map@r", "mrr")
_LARGE = 64  # pixels a side: larger images are averaged down to about this for the baseline
_BATCH = 256

Table = dict[str, dict[str, float]]


def pixels(x: np.ndarray) -> np.ndarray:
    """Embed examples without a model: their own values in a row, scaled to unit norm.

    Images larger than 64 pixels a side are first averaged over squares, which keeps the rows to
    some thousands of values and makes them no worse.

    Args:
        x: images [n, height, width, channels] or vectors [n, d].

    Returns:
        float32 [n, p], of unit norm; a row of zeros stays so.

    Example:

    >>> import numpy as np
    >>> from kinfold.evaluation import pixels
    >>> pixels(np.array([[[[3], [0]], [[0], [4]]]], "uint8"))
    array([[0.6, 0. , 0. , 0.8]], dtype=float32)
    """
    if x.ndim == 4 and max(x.shape[1:3]) > _LARGE:
        x = _averaged(x, -(-max(x.shape[1:3]) // _LARGE))
    rows = x.reshape(len(x), -1).astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=rows, where=norms > 0)


def _averaged(x: np.ndarray, cell: int) -> np.ndarray:
    n, height, width, channels = x.shape
    rows, columns = max(1, height // cell), max(1, width // cell)
    small = np.zeros((n, rows, columns, channels), np.float32)
    for i in range(min(cell, height)):  # not one mean over cells: that needs x as floats at once
        for j in range(min(cell, width)):
            small += x[:, i : i + rows * cell : cell, j : j + columns * cell : cell]
    return small


def embed(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Embed examples in batches of one size, so that a compiled model compiles once.

    Args:
        model: a Keras model.
        x: its inputs [n, ...].

    Returns:
        float32 [n, d].
    """
    parts = []
    for start in range(0, len(x), _BATCH):
        batch = x[start : start + _BATCH]
        filled = np.zeros((_BATCH, *batch.shape[1:]), batch.dtype)
        filled[: len(batch)] = batch
        parts.append(np.asarray(model.predict_on_batch(filled))[: len(batch)])
    return np.concatenate(parts).astype(np.float32)


def measure(split: Split, untrained: np.ndarray, trained: np.ndarray) -> Table:
    """Measure each example's search among all the others, in three embeddings.

    Args:
        split: the examples.
        untrained: their embeddings [n, d] by the model before training.
        trained: their embeddings [n, d] by the model.

    Returns:
        {"pixels": {"recall@1": ..., ...}, "untrained": ..., "trained": ...}, without recall@k where
        there are no k others.
    """
    names = [name for name in METRICS if name != "recall@10" or len(split) > 10]
    table = {}
    for row, vectors in zip(ROWS, (pixels(split.x), untrained, trained), strict=True):
        # Asking for the number of queries left out silences the warning: `describe` says it.
        values = retrieval_metrics(vectors, split.y, metrics=(*names, "queries_without_match"))
        table[row] = {name: float(values[name]) for name in names}
    return table


def as_numpy(variables: list[Any]) -> list[np.ndarray]:
    """Copy variables out of the backend, bit for bit."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: list[Any], values: list[np.ndarray]) -> None:
    """Put back what `as_numpy` gave; ValueError where it is of another model."""
    if [tuple(v.shape) for v in variables] != [v.shape for v in values]:
        raise ValueError(
            "The weights in this run do not fit the model that this version of Kinfold builds "
            "from its settings. Use the version in its config.json."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def describe(split: Split) -> str:
    """Say how much a split holds: "8,144 images of 661 classes"."""
    kind = "images" if split.x.ndim == 4 else "vectors"
    alone = int((np.bincount(split.y) == 1).sum())
    text = f"{len(split):,} {kind} of {len(split.names):,} classes"
    return text + (f" ({alone:,} alone in their class, and no queries)" if alone else "")


def table_text(table: Table, split: Split) -> str:
    """Lay out the table as plain text, a row a model and a column a metric."""
    names = {"pixels": "pixels" if split.x.ndim == 4 else "vectors"}
    columns = list(table["trained"])
    lines = [" " * 12 + "".join(column.rjust(11) for column in columns)]
    for name, row in table.items():
        cells = "".join(f"{row[column]:11.4f}" for column in columns)
        lines.append(names.get(name, name).ljust(12) + cells)
    return "\n".join(lines)
