"""Which classes a model confuses, from the nearest neighbours of all its examples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from kinfold import distances
from kinfold.batches._checks import check_count
from kinfold.core.checks import Tensor
from kinfold.core.labels import integer_labels
from kinfold.metrics.retrieval import neighbours
from kinfold.metrics.task import to_numpy

_FOUND = 1 << 22  # neighbours held at once; with their distances 48 MiB


def confused_classes(
    embeddings: Tensor,
    labels: Any,
    k: int = 50,
    margin: float | None = 0.0,
    most: int = 50,
    distance: Any = "cosine",
) -> np.ndarray:
    r"""Find, for each class, the classes whose examples come nearest to its own.

    With s(a, b) the similarity of two examples (of a distance, its negative), N_k(a) the k nearest
    neighbours of example a that have another label, and p(a) the nearest that has the same,

        confusions(A, B) = \sum_{a in A} |{b in B and N_k(a) : s(a, b) < s(a, p(a)) - margin}|

    A neighbour closer than p(a) less the margin does not count: it is taken for a false negative,
    that is, for the same thing under another label. An example alone in its class counts nothing.

    Neighbours are found in blocks, without a matrix of all pairs.

    Args:
        embeddings: floating [n, d], as an array or a tensor of the backend.
        labels: integers [n] or [n, 1].
        k: number of neighbours of other classes that are looked at per example.
        margin: 0 or more, in the units of the distance. None counts every neighbour.
        most: number of columns of the table, m.
        distance: a name that `kinfold.distances.get` knows, or a `Distance`.

    Returns:
        int64 [classes, m]: row i holds the classes with confusions(i, B) > 0, most confused first,
        and then -1. Classes are numbered in the order of `np.unique(labels)`. Of equal counts
        those come first whose examples are closer by rank, then the lower numbers.

    Raises:
        TypeError: labels are not integers, or a count is not an integer.
        ValueError: embeddings and labels differ in number, a count is below 1, the margin is
            negative or not finite, or what `kinfold.metrics.neighbours` raises.

    References:
        Reimers and Gurevych 2019, Sentence-BERT; the guard is the `absolute_margin` of
        `sentence_transformers.util.mine_hard_negatives`, with the nearest of several positives.

    Example:

    >>> import numpy as np
    >>> from kinfold.batches import confused_classes
    >>> x = np.array([[0.0], [0.2], [1.0], [1.1], [9.0], [9.1]], "float32")
    >>> confused_classes(x, [3, 3, 5, 5, 7, 7], k=2, most=2, distance="euclidean")
    array([[ 1, -1],
           [ 0, -1],
           [ 1, -1]])
    """
    classes, class_of, sizes = np.unique(
        integer_labels(labels, "labels"), return_inverse=True, return_counts=True
    )
    k, most = check_count("k", k), check_count("most", most)
    if margin is not None and not 0 <= margin < math.inf:
        raise ValueError(f"margin must be None, or a number from 0 on. Received {margin!r}.")
    if len(embeddings) != len(class_of):
        raise ValueError(
            "embeddings and labels must have the same number of rows. "
            f"Received {len(embeddings)} and {len(class_of)}."
        )
    if len(classes) == 1:
        return np.full((1, most), -1, np.int64)
    found = [
        _confusions(rows, ids, near, class_of, k, margin)
        for rows, ids, near in _nearest(embeddings, sizes[class_of], k, distances.get(distance))
    ]
    anchor, other, rank = (np.concatenate(part) for part in zip(*found, strict=True))
    return _table(anchor, other, rank, len(classes), most)


def _nearest(
    embeddings: Tensor, sizes: np.ndarray, k: int, distance: distances.Distance
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows, and of each the nearest examples with their similarities [rows, depth].

    So deep that k of other classes are among them: an example's own class takes as many places as
    it has examples, itself included. Large classes come first.
    """
    order = np.argsort(-sizes, kind="stable")
    x = to_numpy(embeddings)
    start = 0
    while start < len(order):
        depth = min(k + int(sizes[order[start]]), len(order))
        rows = order[start : start + max(1, _FOUND // depth)]
        ids, values = neighbours(x[rows], depth, x, distance)
        yield rows, ids, values if distance.similarity else -values
        start += len(rows)


def _confusions(
    rows: np.ndarray,
    ids: np.ndarray,
    near: np.ndarray,
    class_of: np.ndarray,
    k: int,
    margin: float | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The class of the anchor, the class of the neighbour and its rank, of all that count."""
    own = class_of[ids] == class_of[rows][:, None]
    rank = np.cumsum(~own, axis=1) - 1  # among the neighbours of other classes
    counts = ~own & (rank < k)
    if margin is not None:
        # A nearest positive that is not found is further than all that are: then none counts.
        positive = np.where(own & (ids != rows[:, None]), near, -np.inf).max(axis=1)
        counts &= near < (positive - margin)[:, None]
    i, j = np.nonzero(counts)
    return class_of[rows[i]], class_of[ids[i, j]], rank[i, j]


def _table(
    anchor: np.ndarray, other: np.ndarray, rank: np.ndarray, classes: int, most: int
) -> np.ndarray:
    pairs, pair, counts = np.unique(
        anchor * classes + other, return_inverse=True, return_counts=True
    )
    ranks = np.bincount(pair, rank, minlength=len(pairs))
    first, second = np.divmod(pairs, classes)
    order = np.lexsort((second, ranks, -counts, first))
    first, second = first[order], second[order]
    place = np.arange(len(first)) - np.searchsorted(first, first)
    table = np.full((classes, most), -1, np.int64)
    table[first[place < most], place[place < most]] = second[place < most]
    return table
