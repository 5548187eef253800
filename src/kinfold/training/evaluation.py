"""The table of a run: how well raw data, the untrained and the trained model find a class.

The gain over raw data, with an interval, says whether the model is worth using.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kinfold.core.stored import Stored, blocks
from kinfold.datasets import Split
from kinfold.metrics.retrieval import score_queries
from kinfold.metrics.task import Task
from kinfold.training.verdicts import FEWEST
from kinfold.training.verdicts import VECTOR_ROWS as VECTOR_ROWS
from kinfold.training.verdicts import Gain as Gain
from kinfold.training.verdicts import Table as Table
from kinfold.training.verdicts import gain_text as gain_text

ROWS = ("pixels", "raw", "untrained", "trained")  # of images the first, of vectors the second
METRICS = ("recall@1", "recall@10", "map@r", "mrr")
_BATCH = 256
_RESAMPLES = 2000


def embed(
    model: keras.Model, x: np.ndarray | Stored, told: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Embed examples in batches of one size, so that a compiled model compiles once.

    Args:
        model: a Keras model.
        x: its inputs [n, ...].
        told: called after each batch with how many are done and how many there are; see
            `kinfold.training.progress.Progress.embedding`.

    Returns:
        float32 [n, d].
    """
    return embed_by([model], x, told)[0]


def embed_by(
    models: Sequence[keras.Model],
    x: np.ndarray | Stored,
    told: Callable[[int, int], None] | None = None,
) -> list[np.ndarray]:
    """As `embed`, by several models, so that each example is read once."""
    parts: list[list[np.ndarray]] = [[] for _ in models]
    done = 0
    for batch in blocks(x, _BATCH):
        whole = filled(batch, _BATCH)
        for model, found in zip(models, parts, strict=True):
            found.append(predicted(model, whole)[: len(batch)].astype(np.float32))
        done += len(batch)
        if told is not None:
            told(done, len(x))
    return [np.concatenate(found) for found in parts]


def filled(batch: np.ndarray, size: int) -> np.ndarray:
    """A batch with rows of zeros behind it, so that it has a size that is compiled already."""
    whole = np.zeros((size, *batch.shape[1:]), batch.dtype)
    whole[: len(batch)] = batch
    return whole


def predicted(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """The outputs for a batch, as an array."""
    if keras.backend.backend() != "torch":
        return np.asarray(model.predict_on_batch(x))
    # `predict` of Keras 3.16 makes all ranks of torch.distributed wait for one another.
    with importlib.import_module("torch").no_grad():
        return keras.ops.convert_to_numpy(model(x, training=False))


def scores(
    rows: Mapping[str, tuple[np.ndarray, np.ndarray | None]],
    y: np.ndarray,
    gallery_y: np.ndarray | None = None,
) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
    """Score each query in several embeddings of the same examples, by cosine similarity.

    Args:
        rows: by name, the embeddings of the queries [n, d] and of the gallery [m, d]; None for the
            gallery searches each query among the others.
        y: int [n], the classes of the queries.
        gallery_y: int [m], those of the gallery; None where that is None.

    Returns:
        By row and metric the score of each query [q], and the classes [q] of these queries: those
        that have something to find. recall@10 is left out where there are no 10 to find it in.
    """
    size = len(y) - 1 if gallery_y is None else len(gallery_y)
    task = Task.of(y, gallery_y, [name for name in METRICS if name != "recall@10" or size >= 10])
    valid = task.relevant > 0
    found = {}
    for row, (queries, gallery) in rows.items():
        values = score_queries(task, queries, gallery, "cosine")
        found[row] = {name: value[valid] for name, value in values.items()}
    return found, y[valid]


def averaged(found: dict[str, dict[str, np.ndarray]]) -> Table:
    """Average what `scores` gave over the queries."""
    return {
        row: {name: float(value.mean()) for name, value in values.items()}
        for row, values in found.items()
    }


def measure(
    split: Split,
    untrained: np.ndarray,
    trained: np.ndarray,
    raw: Callable[[], np.ndarray],
    rows: np.ndarray | None = None,
) -> tuple[Table, Gain, dict[str, float] | None]:
    """Measure each example's search among all the others, in three embeddings.

    Args:
        split: the examples.
        untrained: their embeddings [n, d] by the model before training.
        trained: their embeddings [n, d] by the model.
        raw: gives the raw input of these examples at unit norm, float32 [m, p].
        rows: int [m], which examples those of `raw` are; None for all. The raw input is then
            measured on these alone, searched in one another, and so is the gain.

    Returns:
        The table {"pixels": {"recall@1": ..., ...}, "untrained": ..., "trained": ...}; the first
        row is "raw" for vectors. The gain of "trained" over the first row, see `gain`. And where
        the first row is of some examples, the metrics of "trained" on these; else None.
    """
    models = {"untrained": (untrained, None), "trained": (trained, None)}
    rows = np.arange(len(split)) if rows is None else rows
    return _measured(split, models, lambda: (raw(), None), (rows, None), (split.y, None))


def measure_in_gallery(
    queries: Split,
    models: dict[str, tuple[np.ndarray, np.ndarray]],
    gallery: Split,
    raw: tuple[np.ndarray, np.ndarray],
    rows: tuple[np.ndarray, np.ndarray],
) -> tuple[Table, Gain, dict[str, float] | None]:
    """As `measure`, for queries searched in a gallery; classes are matched by their names.

    Args:
        queries: the examples that search.
        models: by "untrained" and "trained" the embeddings of queries and gallery.
        gallery: what they are searched in.
        raw: the raw input of some queries and of some of the gallery, or of all.
        rows: which queries, and which of the gallery, these are.
    """
    return _measured(queries, models, lambda: raw, rows, matched(queries, gallery))


def _measured(
    queries: Split,
    models: Mapping[str, tuple[np.ndarray, np.ndarray | None]],
    raw: Callable[[], tuple[np.ndarray, np.ndarray | None]],
    rows: tuple[np.ndarray, np.ndarray | None],
    classes: tuple[np.ndarray, np.ndarray | None],
) -> tuple[Table, Gain, dict[str, float] | None]:
    """Measure queries in a gallery, or in one another where that is None."""
    first = "pixels" if queries.x.ndim == 4 else "raw"
    if all(
        of is None or y is None or len(of) == len(y) for of, y in zip(rows, classes, strict=True)
    ):
        found, y = scores({first: raw(), **models}, *classes)
        return averaged(found), gain(found[first], found["trained"], y), None
    table = averaged(scores(models, *classes)[0])
    part = {first: raw(), "trained": _of_rows(models["trained"], rows)}
    some, y = scores(part, *_of_rows(classes, rows))
    sampled = averaged(some)
    table = {first: {name: sampled[first][name] for name in table["trained"]}, **table}
    return table, gain(some[first], some["trained"], y), sampled["trained"]


def _of_rows(
    pair: tuple[np.ndarray, np.ndarray | None], rows: tuple[np.ndarray, np.ndarray | None]
) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows of the queries, and of the gallery where there is one."""
    return pair[0][rows[0]], None if pair[1] is None else pair[1][rows[1]]


def matched(split: Split, other: Split) -> tuple[np.ndarray, np.ndarray]:
    """Number the classes of two splits alike: the same name gets the same number."""
    numbers = {name: k for k, name in enumerate(dict.fromkeys(split.names + other.names))}
    ours, theirs = (
        np.array([numbers[name] for name in part.names], np.int64)[part.y]
        for part in (split, other)
    )
    return ours, theirs


def gain(raw: dict[str, np.ndarray], trained: dict[str, np.ndarray], y: np.ndarray) -> Gain:
    """Say by how much metrics rose, and how much that depends on the choice of test classes.

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
    >>> from kinfold.training.evaluation import gain
    >>> raw, trained = np.array([0.0, 1, 0, 1]), np.array([1.0, 1, 0, 1])
    >>> gain({"recall@1": raw}, {"recall@1": trained}, np.array([0, 0, 1, 1]))["recall@1"]
    {'difference': 0.25, 'errors_removed': 0.5, 'low': None, 'high': None}
    """
    y = np.unique(y, return_inverse=True)[1]
    counts = np.bincount(y)
    rng = np.random.default_rng(0)
    draws = [np.bincount(rng.integers(len(counts), size=len(counts)), minlength=len(counts))
             for _ in range(_RESAMPLES if len(counts) >= FEWEST else 0)]  # fmt: skip
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
