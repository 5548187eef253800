"""What a search gives."""

import numpy as np

from _kinfold_found import Neighbours as Neighbours


def taken(column: np.ndarray, at: np.ndarray, there: np.ndarray) -> np.ndarray:
    """What a column says of rows [q, k]; None where there is no row."""
    out = np.full(at.shape, None, object)
    out[there] = column[at[there]]
    return out
