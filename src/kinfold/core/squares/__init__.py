"""Squared distances ||x - r||^2 of all pairs of rows, and roots, which rounding does not cancel.

||x||^2 + ||r||^2 - 2 x.r takes one matrix product, but its error is a part of ||x||^2 + ||r||^2: of
rows that are closer than that it tells nothing. Such pairs, below `NEAR` of that sum, are few in
most batches. They are found in one pass, and computed again from the differences x - r: equal rows
are at 0 exactly, and others at the distance they have.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold.core import backends
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32

# At this part of ||x||^2 + ||r||^2 the root of a square is right to about 3e-4 in float32, to 6e-6
# in float64. Rows of unit norm are that near where they are 0.016 apart, or 5e-6 in float64.
NEAR = {"float32": 2.0**-13, "float64": 2.0**-36}

# Rows that a common centre is sampled from, where there is one, and how many times their squared
# distance from it the centre's own square must be: nearer ones lose little to it.
CENTRE, FAR = 5, 16.0

# An odd number whose product spreads the bits of a whole one.
MIX = -1640531527


def squared(x: Tensor, r: Tensor, known: Tensor | None = None) -> Tensor:
    """||x - r||^2 of every row of `x` [t, d] and `r` [m, d], in float32 at least: [t, m].

    Args:
        known: what `known(r)` returned, for an `r` that gets no gradient.

    Returns:
        Of the dtype of `x`.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.cast(_backend().squared(at_least_float32(x), at_least_float32(r), known), dtype)


def distance(x: Tensor, r: Tensor, known: Tensor | None = None) -> Tensor:
    """||x - r||, the root of `squared`, with gradient 0 at 0."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.cast(_backend().distance(at_least_float32(x), at_least_float32(r), known), dtype)


def known(r: Tensor) -> Tensor:
    """What `squared` takes of its references, for references that many blocks meet."""
    return _backend().known(at_least_float32(r))


def odd_weights(d: int) -> np.ndarray:
    """int32 [d], the same at every call: products of whole numbers with them lose no bits."""
    return np.random.default_rng(0).integers(-(2**30), 2**30, d).astype(np.int32) * 2 + 1


def _backend() -> Any:
    return backends.module(__name__)
