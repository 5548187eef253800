"""The table of a run: how well raw data, the untrained and the trained model find a class.

Of vectors also the gain over them, with an interval: whether the model is worth its place.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kinfold.datasets import Split
from kinfold.metrics import score_queries
from kinfold.ranking import Task

ROWS = ("pixels", "raw", "untrained", "trained")  # of images the first, of vectors the second
METRICS = ("recall@1", "recall@10", "map@r", "mrr")
_LARGE = 64  # pixels a side: larger images are averaged down to about this for the baseline
_BATCH = 256
_RESAMPLES = 2000
_FEWEST = 10  # classes, of which an interval is given

Table = dict[str, dict[str, float]]
Gain = dict[str, dict[str, float | None]]


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


def embed(
    model: keras.Model, x: np.ndarray, told: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Embed examples in batches of one size, so that a compiled model compiles once.

    Args:
        model: a Keras model.
        x: its inputs [n, ...].
        told: called after each batch with how many are done and how many there are; see
            `kinfold.progress.Progress.embedding`.

    Returns:
        float32 [n, d].
    """
    parts = []
    for start in range(0, len(x), _BATCH):
        batch = x[start : start + _BATCH]
        filled = np.zeros((_BATCH, *batch.shape[1:]), batch.dtype)
        filled[: len(batch)] = batch
        parts.append(np.asarray(model.predict_on_batch(filled))[: len(batch)])
        if told is not None:
            told(start + len(batch), len(x))
    return np.concatenate(parts).astype(np.float32)


def measure(split: Split, untrained: np.ndarray, trained: np.ndarray) -> tuple[Table, Gain]:
    """Measure each example's search among all the others, in three embeddings.

    Args:
        split: the examples.
        untrained: their embeddings [n, d] by the model before training.
        trained: their embeddings [n, d] by the model.

    Returns:
        The table {"pixels": {"recall@1": ..., ...}, "untrained": ..., "trained": ...}, without
        recall@k where there are no k others; the first row is "raw" for vectors. And for vectors
        the gain of "trained" over "raw", see `gain`; {} for images.
    """
    names = [name for name in METRICS if name != "recall@10" or len(split) > 10]
    task = Task.of(split.y, None, names)
    valid = task.relevant > 0
    table: Table = {}
    scores: dict[str, dict[str, np.ndarray]] = {}
    first = "pixels" if split.x.ndim == 4 else "raw"
    for row in (first, "untrained", "trained"):
        vectors = {"untrained": untrained, "trained": trained}.get(row)
        values = score_queries(
            task, pixels(split.x) if vectors is None else vectors, None, "cosine"
        )
        scores[row] = {name: value[valid] for name, value in values.items()}
        table[row] = {name: float(value.mean()) for name, value in scores[row].items()}
    if first == "pixels":
        return table, {}
    return table, gain(scores["raw"], scores["trained"], split.y[valid])


def gain(raw: dict[str, np.ndarray], trained: dict[str, np.ndarray], y: np.ndarray) -> Gain:
    """Say by how much metrics rose, and how far that depends on which classes were tested.

    The interval holds 95 % of the gains on classes drawn anew, with replacement, from these: a
    bootstrap of whole classes, since the queries of one class succeed or fail together.

    Args:
        raw: for each metric the score of each query [q].
        trained: the same of the model.
        y: int [q], the class of each query.

    Returns:
        For each metric {"difference": ..., "errors_removed": the share of what raw lacked to 1,
        "low": ..., "high": ...}; None where it is not defined: no errors, or under 10 classes.

    Example:

    >>> import numpy as np
    >>> from kinfold.evaluation import gain
    >>> raw, trained = np.array([0.0, 1, 0, 1]), np.array([1.0, 1, 0, 1])
    >>> gain({"recall@1": raw}, {"recall@1": trained}, np.array([0, 0, 1, 1]))["recall@1"]
    {'difference': 0.25, 'errors_removed': 0.5, 'low': None, 'high': None}
    """
    y = np.unique(y, return_inverse=True)[1]
    counts = np.bincount(y)
    rng = np.random.default_rng(0)
    draws = [np.bincount(rng.integers(len(counts), size=len(counts)), minlength=len(counts))
             for _ in range(_RESAMPLES if len(counts) >= _FEWEST else 0)]  # fmt: skip
    gains: Gain = {}
    for name in raw:
        change = trained[name] - raw[name]
        sums = np.bincount(y, change)
        difference, missing = float(change.mean()), float(1 - raw[name].mean())
        low = high = None
        if draws:
            resampled = [draw @ sums / (draw @ counts) for draw in draws]
            low, high = (float(limit) for limit in np.quantile(resampled, (0.025, 0.975)))
        removed = difference / missing if missing > 0 else None
        gains[name] = {
            "difference": difference, "errors_removed": removed, "low": low, "high": high
        }  # fmt: skip
    return gains


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


def table_text(table: Table, gain: Gain | None = None) -> str:
    """Lay out the table as plain text, a row a model and a column a metric; then the gain."""
    names = VECTOR_ROWS if "raw" in table else {"untrained": "before"}
    columns = list(table["trained"])
    width = max(12, *(len(name) + 2 for name in names.values())) if names else 12
    lines = [" " * width + "".join(column.rjust(11) for column in columns)]
    for name, row in table.items():
        cells = "".join(f"{row[column]:11.4f}" for column in columns)
        lines.append(names.get(name, name).ljust(width) + cells)
    if gain:
        cells = "".join(f"{gain[column]['difference']:+11.4f}" for column in columns)
        lines += ["gain".ljust(width) + cells, *gain_text(gain)]
    return "\n".join(lines)


VECTOR_ROWS = {
    "raw": "raw embeddings",
    "untrained": "before training",
    "trained": "after training",
}
_JUDGED = ("recall@1", "map@r")


def gain_text(gain: Gain) -> list[str]:
    """Say what was gained over raw embeddings, and whether that is a reason to use the model."""
    said, lows, highs, differences = [], [], [], []
    for name in _JUDGED:
        values = gain[name]
        difference, low, high = (values[key] for key in ("difference", "low", "high"))
        assert difference is not None
        text = f"{name} {100 * difference:+.2f} points"
        if low is not None and high is not None:
            text += f" (95% of resamples of the classes: {100 * low:+.2f} to {100 * high:+.2f})"
            lows.append(low)
            highs.append(high)
        removed = values["errors_removed"]
        if removed is not None and difference > 0:
            text += f", {100 * removed:.0f}% of what was missing to 1"
        said.append(text)
        differences.append(difference)
    lines = ["Gain over the raw embeddings: " + "; ".join(said) + "."]
    if max(differences) <= 0 or (lows and max(lows) <= 0 and min(highs) < 0):
        lines.append("The trained head is not better than the raw embeddings: keep the raw ones.")
    elif min(differences) < 0 or not lows or max(lows) <= 0:
        lines.append(
            "It is not certain that the trained head is better than the raw embeddings: test it on "
            "more classes before it takes their place."
        )
    return lines
