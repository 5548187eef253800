"""What a search gives."""

from typing import NamedTuple

import numpy as np


class Neighbours(NamedTuple):
    """What a search found, arrays [queries, k], nearest first; None or infinity where no more is.

    Attributes:
        ids: of the items, object.
        distances: of the items from the query, float32, in the distance's own units.
        labels: of the items, object.
        metadata: of the items, object.
    """

    ids: np.ndarray
    distances: np.ndarray
    labels: np.ndarray
    metadata: np.ndarray


def taken(column: np.ndarray, at: np.ndarray, there: np.ndarray) -> np.ndarray:
    """What a column says of rows [q, k]; None where there is no row."""
    out = np.full(at.shape, None, object)
    out[there] = column[at[there]]
    return out
