"""Class ids in NumPy arrays: the shapes and types that batches, metrics and datasets take."""

from typing import Any

import numpy as np

# Kinds of NumPy: no booleans, since a mask in the place of labels is a mistake more often than not.
INTEGERS = "iu"


def integer_labels(value: Any, name: str) -> np.ndarray:
    """Return integer labels `[n]` or `[n, 1]` as an array `[n]`, in the type that they have.

    Args:
        value: an array, or what NumPy makes one of.
        name: the argument that they came in, for the errors.

    Raises:
        ValueError: another shape, or no labels.
        TypeError: labels that are not integers; booleans are not.

    Example:

    >>> from kinfold.core.labels import integer_labels
    >>> integer_labels([[3], [5]], "labels").tolist()
    [3, 5]
    """
    labels = as_vector(np.asarray(value))
    if labels.ndim != 1 or len(labels) == 0:
        raise ValueError(
            f"`{name}` must have shape [n] or [n, 1], with n at least 1. "
            f"Received shape {labels.shape}."
        )
    if labels.dtype.kind not in INTEGERS:
        numbers = labels.dtype.kind in "fb"
        way = f"{name}.astype('int32')" if numbers else f"np.unique({name}, return_inverse=True)[1]"
        raise TypeError(
            f"`{name}` must hold integer class ids. Received dtype {labels.dtype}; pass {way}, for "
            "example."
        )
    return labels


def as_vector(labels: np.ndarray) -> np.ndarray:
    """Labels `[n, 1]` as `[n]`; those of any other shape as they are."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
