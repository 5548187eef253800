"""Retrieval metrics and nearest neighbours, over blocks: never a query x gallery matrix."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.metrics.compared import Comparison
from kinfold.metrics.nearest import Nearest, nearest
from kinfold.metrics.ranking import score, smallest
from kinfold.metrics.task import AVERAGES, Task

__all__ = ["neighbours", "retrieval_metrics"]

# Rows of distances held at once, and the arithmetic of one call of the distance (Manhattan holds
# rows * columns * dimensions differences). About 16 MB and 128 MB of float32.
_BLOCK_ELEMENTS = 1 << 22
_WORK_ELEMENTS = 1 << 25
# Queries that are scored at once by their nearest items.
_ROWS = 4096


def retrieval_metrics(
    query: Tensor,
    query_labels: Tensor,
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    metrics: Sequence[str] = ("recall@1", "map@r"),
    distance: Any = "cosine",
    *,
    query_groups: Tensor | None = None,
    gallery_groups: Tensor | None = None,
    average: str = "queries",
) -> dict[str, float]:
    r"""How well each query's own class comes first when the gallery is ranked by distance.

    With rel(i) = 1 where the item at rank i has the query's label and 0 elsewhere,
    P(i) = (1/i) \sum_{j <= i} rel(j), and R the number of such items in the gallery, a query scores

    | name | value |
    |---|---|
    | `recall@k` | 1 if any rel(i) = 1 with i <= k, else 0 |
    | `precision@k` | P(k): divided by k, also where R < k |
    | `r_precision` | P(R) |
    | `map@r` | (1/R) \sum_{i <= R} P(i) rel(i) |
    | `map@k` | (1/min(R, k)) \sum_{i <= k} P(i) rel(i) |
    | `map_found@r`, `map_found@k` | the same sums, divided by the hits among those ranks |
    | `mrr` | 1/i at the first i with rel(i) = 1, over the whole ranking |
    | `mrr@k` | the same if that i <= k, else 0 |
    | `ndcg@k` | \sum_{i <= k} rel(i)/log2(i+1), over \sum_{i <= min(R, k)} 1/log2(i+1) |

    and the metric is the mean over queries, or over classes. Queries with R = 0 are left out of
    every mean. The metric `queries_without_match` is their number, and `queries` the number of
    those that count; if the first is not asked for, one warning gives it.

    Without a gallery, the queries are their own gallery. Each is removed from its own ranking by
    its index, so that no query matches itself, also among duplicates.

    With groups, such as cameras, sessions or sellers, a query is not ranked against items of its
    own class and group, which are too easy to find: neither as hits nor as misses. `recall@k` is
    then what re-identification calls CMC at rank k.

    Ties: where items are equally far, a query scores what it would on average over all orders of
    them. So the order of the gallery makes no difference, and a collapsed model scores as chance
    does (`map_found` takes the means of its sum and of the hits apart). Gallery items with equal
    embeddings always tie. Other items tie if their float32 distances
    are equal; if rounding splits such a tie, the result is one of the orders averaged over.

    Args:
        query: floating [n, d], as an array or a tensor of the backend; computed in float32. With
            `distance="cosine"` rows are scaled to unit norm first, and a zero row stays zero.
        query_labels: integers [n] or [n, 1], compared as 64-bit integers.
        gallery: floating [m, d], or None.
        gallery_labels: integers [m] or [m, 1]; given exactly when `gallery` is.
        metrics: names from the table, k being a number: "recall@5", "precision@1", "map@10".
        distance: a name that `kinfold.distances.get` knows, or a `Distance`.
        query_groups: integers [n] or [n, 1], or None.
        gallery_groups: integers [m] or [m, 1]; given exactly when `gallery` and `query_groups` are.
        average: "queries" for the mean over queries, "classes" for the mean over the means of
            their classes, so that a class with many queries counts no more than another.

    Returns:
        A float for each name in `metrics`.

    Raises:
        ValueError: an unknown metric or average, a k beyond the size of the ranking, no query with
            a match, shapes that do not fit, embeddings or distances that are not finite.
        TypeError: labels that are not integers, embeddings that are not numbers.

    References:
        Musgrave et al. 2020, A Metric Learning Reality Check (R-precision, MAP@R).
        McSherry and Najork 2008, Computing Information Retrieval Performance Measures Efficiently
        in the Presence of Tied Scores.

    Example:

    >>> import numpy as np
    >>> from kinfold.metrics import retrieval_metrics
    >>> x = np.array([[0.0], [1.0], [1.5], [9.0], [8.0]], "float32")
    >>> y = np.array([0, 0, 1, 1, 1])
    >>> values = retrieval_metrics(x, y, metrics=("recall@1", "recall@2"), distance="euclidean")
    >>> {name: round(value, 3) for name, value in values.items()}
    {'recall@1': 0.6, 'recall@2': 0.8}
    """
    check_gallery(gallery, gallery_labels)
    average = checks.choice(average, "average", AVERAGES)
    task = Task.of(query_labels, gallery_labels, metrics, query_groups, gallery_groups)
    values = measure(task, query, gallery, distance, average)
    if "queries_without_match" not in values:
        task.warn_of_left_out()
    return values


def check_gallery(gallery: Tensor | None, gallery_labels: Tensor | None) -> None:
    """Raise ValueError where only one of both is given."""
    if (gallery is None) != (gallery_labels is None):
        raise ValueError(
            "`gallery` and `gallery_labels` must be given together, or neither. "
            f"Received only `{'gallery' if gallery_labels is None else 'gallery_labels'}`."
        )


def neighbours(
    query: Tensor, k: int, gallery: Tensor | None = None, distance: Any = "cosine"
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k nearest gallery items of each query, nearest first, equal ones by index.

    Without a gallery, the queries are their own gallery; each is left out of its own list by index.

    Args:
        query: floating [n, d], as an array or a tensor of the backend; computed in float32. With
            `distance="cosine"` rows are scaled to unit norm first, and a zero row stays zero.
        k: number of neighbours, at most the number of items to find.
        gallery: floating [m, d], or None.
        distance: a name that `kinfold.distances.get` knows, or a `Distance`. With a similarity the
            largest values come first.

    Returns:
        indices: int64 [n, k], rows of the gallery.
        distances: float32 [n, k], in the distance's own units.

    Raises:
        ValueError: k is out of range, shapes do not fit, embeddings or distances are not finite.
        TypeError: k is not a whole number, embeddings are not numbers.

    Example:

    >>> import numpy as np
    >>> from kinfold.metrics import neighbours
    >>> x = np.array([[0.0], [1.0], [1.5], [9.0]], "float32")
    >>> indices, values = neighbours(x, 2, distance="euclidean")
    >>> indices.tolist(), values[3].tolist()
    ([[1, 2], [2, 0], [1, 0], [2, 1]], [7.5, 8.0])
    """
    compared = Comparison.of(query, gallery, distance)
    n, available = len(compared.x), len(compared.r) - compared.own_gallery
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise TypeError(f"`k` must be a whole number. Received: k={k!r}.")
    if not 1 <= k <= available:
        raise ValueError(
            f"`k` must be at least 1 and at most {available}, the number of items to find. "
            f"Received: k={k}."
        )
    shortlists = nearest(compared, k)
    if shortlists is not None:
        indices, values = _first(*shortlists, k)
        return indices, -values if compared.kind.similarity else values
    indices = np.empty((n, k), np.int64)
    values = np.empty((n, k), np.float32)
    for rows, block in blocks(compared, np.arange(n)):
        closest = np.sort(smallest(block, k), axis=1)
        found = np.take_along_axis(block, closest, axis=1)
        # Where more items tie at the last place than fit, `smallest` keeps any: keep the first.
        furthest = found.max(axis=1, keepdims=True)
        for i in np.flatnonzero(np.count_nonzero(block <= furthest, axis=1) > k):
            tied = np.flatnonzero(block[i] == furthest[i])
            fixed = np.flatnonzero(block[i] < furthest[i])
            closest[i] = np.sort(np.concatenate([fixed, tied[: k - len(fixed)]]))
        found = np.take_along_axis(block, closest, axis=1)
        order = np.argsort(found, axis=1, kind="stable")
        indices[rows] = np.take_along_axis(closest, order, axis=1)
        values[rows] = np.take_along_axis(found, order, axis=1)
    return indices, -values if compared.kind.similarity else values


def _first(values: np.ndarray, items: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k of each row by their values, equal ones by item."""
    order = np.argsort(items, axis=1)
    values = np.take_along_axis(values, order, axis=1)
    first = np.argsort(values, axis=1, kind="stable")[:, :k]
    order = np.take_along_axis(order, first, axis=1)
    return np.take_along_axis(items, order, axis=1), np.take_along_axis(values, first, axis=1)


def measure(
    task: Task, query: Tensor, gallery: Tensor | None, distance: Any, average: str = "queries"
) -> dict[str, float]:
    """The metrics that `task` asks for, of these embeddings."""
    scores = score_queries(task, query, gallery, distance)
    valid = task.relevant > 0
    counts = {"queries": valid.sum(), "queries_without_match": (~valid).sum()}
    weights = np.ones(valid.sum())
    if average == "classes":
        classes = task.query_classes[valid]
        weights = 1 / np.bincount(classes)[classes]
    return {
        name: float(counts[name] if name in counts else np.average(score[valid], weights=weights))
        for name, score in scores.items()
    }


def score_queries(
    task: Task, query: Tensor, gallery: Tensor | None, distance: Any
) -> dict[str, np.ndarray]:
    """The metrics that `task` asks for, of each query [n]; 0 where there is nothing to find."""
    compared = Comparison.of(query, gallery, distance)
    for name, rows, labels in (
        ("query", compared.x, task.query_classes),
        ("gallery", compared.r, task.gallery_classes),
    ):
        if len(rows) != len(labels):
            raise ValueError(
                f"`{name}` and `{name}_labels` must have the same number of rows. "
                f"Received {len(rows)} and {len(labels)}."
            )
    # Queries with few relevant items first, so that blocks of them need only a shallow ranking.
    order = np.argsort(task.relevant, kind="stable")
    order = order[task.relevant[order] > 0]
    scores = {name: np.zeros(len(compared.x)) for name in task.asked}
    shortlists = nearest(compared, task.depth(order))
    if shortlists is not None:
        left = _scored_by(shortlists, task, order, scores)
        # Queries whose whole ranking is asked for, and whose nearest item of their class is beyond.
        task = task.of_whole_rankings()
        order = order[left] if task.asked else order[:0]
    for rows, block in blocks(compared, order):
        block, hits = task.without_own_group(rows, block)
        for name, values in score(task, rows, block, hits).items():
            scores[name][rows] = values
    return scores


def _scored_by(
    found: Nearest, task: Task, order: np.ndarray, scores: dict[str, np.ndarray]
) -> np.ndarray:
    """Score queries by their nearest items; return which of them [len(order)] lack a hit there."""
    left = np.zeros(len(order), bool)
    for start in range(0, len(order), _ROWS):
        rows = order[start : start + _ROWS]
        block, items = found.distances[rows], found.items[rows]
        block, hits = task.without_own_group(rows, block, items)
        hits &= np.isfinite(block)
        for name, values in score(task, rows, block, hits).items():
            scores[name][rows] = values
        left[start : start + _ROWS] = ~hits.any(axis=1)
    return left


def blocks(compared: Comparison, order: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of `x`, in the given order, and their distances [rows, m] to all of `r`.

    Smaller is closer, also for a similarity; a query's own entry is infinite where `r` is `x`.
    """
    x, kind = compared.x, compared.kind
    r, copies = compared.gallery.copies
    m, d = r.shape
    height, width = _BLOCK_ELEMENTS // len(copies), m
    if not compared.of_products:  # a distance of one's own may hold d numbers of a pair
        height = min(height, _WORK_ELEMENTS // (min(m, 256) * d))
        width = max(1, _WORK_ELEMENTS // (max(1, min(height, len(order))) * d))
    height = max(1, min(height, len(order)))
    pieces = [ops.convert_to_tensor(r[start : start + width]) for start in range(0, m, width)]
    for start in range(0, len(order), height):
        rows = order[start : start + height]
        anchors = ops.convert_to_tensor(x[rows])
        block = np.concatenate([compared.distances_of(anchors, piece) for piece in pieces], axis=1)
        if not (np.isfinite(block.min()) and np.isfinite(block.max())):
            largest = max(np.abs(x).max(), np.abs(r).max())
            raise ValueError(
                f"The {kind.name} distances of these embeddings are not finite in float32. "
                f"Received embeddings with entries up to {largest:g}; scale them down."
            )
        if kind.similarity:
            block = -block
        if m < len(copies):
            block = np.take(block, copies, axis=1)
        if compared.zeros is not None:  # a zero row is at 1 from all
            block[compared.zeros[0][rows]] = 1.0
            block[:, compared.zeros[1]] = 1.0
        if compared.own_gallery:
            block[np.arange(len(rows)), rows] = np.inf
        yield rows, block
