"""How a reducer takes lists and matrices of losses."""

from typing import Any

import keras
from keras import ops

from kinfold.core.checks import Tensor
from kinfold.core.numerics import divide


def of_list(
    losses: Tensor, weights: Tensor | None, reducer: Any, divisor: Tensor | None = None
) -> Tensor:
    """Reduce the losses of a list of elements [k], with the weight of each one's anchor."""
    row = ops.expand_dims(losses, 0)
    if weights is not None:
        row = row * ops.expand_dims(weights, 0)
    total, number = reducer.of_rows(row, ops.ones_like(row))
    total, number = total[0], number[0]
    if reducer.sums:
        return total
    if divisor is not None and reducer.by_divisor:
        number = divisor
    return divide(total, ops.cast(number, keras.backend.standardize_dtype(total.dtype)))


def of_matrix(losses: Tensor, times: Tensor, weights: Tensor | None, reducer: Any) -> Tensor:
    """Reduce the losses of pairs [n, m], each so often an element, with weights of anchors [n]."""
    if weights is not None:
        losses = losses * ops.expand_dims(weights, 1)
    total, number = (ops.sum(part) for part in reducer.of_rows(losses, times))
    if reducer.sums:
        return total
    return divide(total, ops.cast(number, keras.backend.standardize_dtype(total.dtype)))


def of_pairs(reducer: Any, losses: Tensor, weights: Tensor | None, pairs: Any, n: int) -> Tensor:
    """Reduce a list of pairs with a reducer that looks at all pairs of each of n anchors."""
    if weights is not None:
        losses = losses * weights
    a, b = (ops.convert_to_tensor(at, dtype="int32") for at in pairs[:2])
    m = max(n, int(ops.max(b)) + 1) if b.shape[0] else n
    at = a * m + b
    found, times = (
        ops.reshape(ops.segment_sum(part, at, num_segments=n * m), (n, m))
        for part in (losses, ops.ones_like(losses))
    )
    return of_matrix(found, times, None, reducer)
