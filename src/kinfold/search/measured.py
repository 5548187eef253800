"""Rows of an index measured against queries, from the vectors themselves."""

import numpy as np

from kinfold import distances
from kinfold.metrics.compared import paired
from kinfold.search.engines.exact import Exact
from kinfold.search.vectors import Vectors

_BLOCK = 20_000  # rows that are compared at once


def compare(
    distance: distances.Distance, vectors: Vectors, x: np.ndarray, k: int, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of these rows, each of which is compared: distances and rows [q, k], sorted."""
    values, at = np.zeros((len(x), 0), np.float32), np.zeros((len(x), 0), np.int64)
    for start in range(0, len(rows), _BLOCK):
        some = rows[start : start + _BLOCK]
        exact = Exact(distance)
        exact.add(vectors.take(some), some)
        more, their = measure(distance, vectors, x, exact.search(x, k, None))
        values, at = np.concatenate([values, more], 1), np.concatenate([at, their], 1)
        values, at = (part[:, :k] for part in _in_order(values, at))
    return values, at


def measure(
    distance: distances.Distance, vectors: Vectors, x: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The distances of rows [q, w], -1 for none, sorted with them; smaller is closer."""
    there = at >= 0
    query = np.nonzero(there)[0]
    values = np.full(at.shape, np.inf, np.float32)
    values[there] = paired(distance, x[query], vectors.take(at[there]))
    return _in_order(values, at)


def _in_order(values: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in the order of the values, equal ones by row."""
    order = np.lexsort((at, values))
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(at, order, axis=1)
