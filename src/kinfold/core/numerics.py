"""Forms that stay exact, and whose gradients stay finite, where the plain ones do not.

Two habits run through them. Both branches of a `where` are differentiated, so an inner `where`
keeps the dangerous operation away from its singular point. And on torch and JAX the binary
functions of `keras.ops` turn float64 into float32 under the default floatx (matmul, maximum,
logaddexp, divide_no_nan), so operators and one-argument functions are used instead.
"""

from typing import Any

import keras
from keras import ops

from kinfold.core.checks import Tensor

if keras.backend.backend() == "torch":
    import torch

    from kinfold.core import torch_numerics

# Rounding of 1 - x.x of rows of unit norm: up to eight units of the last place of 1 at d = 2048.
# The distance of rows that are 0.002 apart is as small (8e-8 in float64).
NOISE = {dtype: 16.0 * eps for dtype, eps in (("float64", 2.0**-52), ("float32", 2.0**-23))}
NOISE |= {"bfloat16": 0.0, "float16": 0.0}  # not computed in


def by_hand() -> Any:
    """`torch_numerics` where it serves: on PyTorch, unless torch.compile fuses what is here."""
    if keras.backend.backend() != "torch" or torch_numerics.unwanted():
        return None
    return torch_numerics


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32 at least, for sums: bfloat16 counts only to 256."""
    narrow = keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16")
    return ops.cast(x, "float32") if narrow else x


def square_root(square: Tensor) -> Tensor:
    """sqrt, with value and gradient 0 at 0 and below (the plain form gives NaN, on any backend)."""
    if hand := by_hand():
        return hand.SquareRoot.apply(square)
    some = ops.logical_not(square <= 0)  # NaN stays NaN
    root = ops.sqrt(ops.where(some, square, ops.ones_like(square)))
    return ops.where(some, root, ops.zeros_like(square))


def without_noise(x: Tensor) -> Tensor:
    """max(x, 0), and 0 for what may be the rounding of a product of rows of unit norm.

    `x` may be written over.
    """
    noise = NOISE[keras.backend.standardize_dtype(x.dtype)]
    if keras.backend.backend() == "torch":
        return torch.threshold_(x, noise, 0.0)
    return ops.where(x <= noise, ops.zeros_like(x), x)  # NaN stays


def divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b, with value and gradient 0 where b is 0; `b` broadcasts to `a`."""
    some = ops.not_equal(b, ops.zeros_like(b))
    ratio = a / ops.where(some, b, ops.ones_like(b))
    return ops.where(some, ratio, ops.zeros_like(a))


def unit_rows(x: Tensor) -> Tensor:
    """Scale each row to unit length; a zero row stays zero, with zero gradient.

    x / ||x||, with the norm taken in at least float32.

    Args:
        x: floating tensor [..., d].

    Returns:
        Tensor of the shape and dtype of `x`.

    Example:

    >>> import numpy as np
    >>> from kinfold.core.numerics import unit_rows
    >>> from keras import ops
    >>> ops.convert_to_numpy(unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]], "float32"))).round(3)
    array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    x = ops.convert_to_tensor(x)
    if 0 in x.shape:  # which has no largest entry
        return x
    dtype = keras.backend.standardize_dtype(x.dtype)
    y = at_least_float32(x)
    if hand := by_hand():
        return ops.cast(hand.UnitRows.apply(y)[0], dtype)
    # Scaled first, so that the square neither overflows nor vanishes; a subnormal row counts as 0.
    largest = ops.stop_gradient(ops.max(ops.abs(y), axis=-1, keepdims=True))
    some = largest > 1.2e-38
    y = y / ops.where(some, largest, ops.ones_like(largest))
    square = ops.sum(y * y, axis=-1, keepdims=True)
    one = ops.ones_like(square)
    scale = ops.where(some, ops.rsqrt(ops.where(some, square, one)), ops.zeros_like(square))
    return ops.cast(y * scale, dtype)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), to the last digit (torch's own is x above 20, which float64 can tell)."""
    if keras.backend.standardize_dtype(x.dtype) != "float64":
        return ops.softplus(x)
    positive = x > 0
    return ops.relu(x) + ops.log1p(ops.exp(ops.where(positive, -x, x)))


def differentiated_again() -> bool:
    """Whether an equation is to be written in operations whose derivatives have derivatives.

    On PyTorch within `torch_numerics.again` and the transforms of torch.func. JAX and TensorFlow
    never tell.
    """
    return keras.backend.backend() == "torch" and torch_numerics.differentiated_again()


def transformed() -> bool:
    """Whether a transform of torch.func is at work, which takes plain operations alone."""
    return keras.backend.backend() == "torch" and torch_numerics.transformed()


def or_nan(loss: Tensor, *embeddings: Tensor) -> Tensor:
    """`loss`; NaN, with a gradient of NaN, where an embedding is not finite.

    A comparison, XLA's maximum or a hinge would hide it, and a step that is wrong must be seen: by
    whoever reads the loss, and by an optimizer that skips such steps.
    """
    for x in embeddings:
        loss = loss * _one_or_nan(x, None, loss)
    return loss


def rows_or_nan(rows: Tensor, embeddings: Tensor) -> Tensor:
    """Rows [n]; NaN, as `or_nan`, for those whose own embedding [n, ...] is not finite."""
    return rows * _one_or_nan(embeddings, tuple(range(1, len(embeddings.shape))), rows)


def _one_or_nan(x: Tensor, axes: Any, like: Tensor) -> Tensor:
    # A sum passes on what is not finite, faster than a mask does. It is taken of numbers so small
    # that finite ones do not overflow.
    hand = by_hand()
    if hand and axes is None and x.is_cuda and 0 not in x.shape:
        total = hand.extent(x)  # without a copy in float32
        axes = ()
    else:
        total = at_least_float32(ops.stop_gradient(x)) * 2.0**-30
    if axes != ():
        total = ops.sum(total, axis=axes)
    one = ops.ones_like(total)
    return ops.cast(ops.where(ops.isfinite(total), one, float("nan") * one), like.dtype)


def largest(x: Tensor, axis: int) -> Tensor:
    """Largest entry along an axis; equal ones share its gradient."""
    if 0 in x.shape:
        return ops.sum(x, axis=axis)
    hand = by_hand()
    return hand.Largest.apply(x, axis) if hand else ops.max(x, axis=axis)


def any_in_row(mask: Tensor) -> Tensor:
    """Whether any entry of each row of `mask` [t, m] is True, boolean [t]."""
    hand = by_hand()
    return hand.some(mask) if hand else ops.any(mask, axis=1)


def count_in_row(mask: Tensor) -> Tensor:
    """How many entries of each row of `mask` [t, m] are True, integers [t]."""
    hand = by_hand()
    return hand.count(mask) if hand else ops.sum(mask, axis=1)


def sum_at(values: Tensor, at: Tensor, number: int) -> Tensor:
    """Sum of the values [k, ...] that belong at each of `number` positions, in their own precision.

    Args:
        values: floating [k, ...].
        at: integers [k], from 0 to `number` - 1.
    """
    if keras.backend.backend() == "torch":  # where segment_sum is in float32
        return values.new_zeros(number, *values.shape[1:]).index_add(0, at.long(), values)
    return ops.segment_sum(values, at, num_segments=number)


def log_sum_exp(logit: Tensor, mask: Tensor | None = None, axis: int = 1) -> Tensor:
    """Log of the sum of exp(logit) over the allowed entries of each row; 0 for a row without any.

    Args:
        logit: floating [t, m].
        mask: boolean [t, m], the allowed entries; None allows every entry. Entries of -inf add
            nothing; a row of only -inf returns -inf.
        axis: 1; or, without a mask, 0 for columns instead of rows.

    Returns:
        Floating [t], or [m] of columns.
    """
    if hand := by_hand():
        return hand.LogSumExp.apply(logit, mask, axis)[0]
    if mask is None:
        return ops.logsumexp(logit, axis=axis)
    # What is not allowed is -inf, or the allowed ones could underflow beside it; but in a row of
    # nothing else 0, whose gradient is not NaN.
    some = ops.any(mask, axis=1)
    nothing = ops.where(some, -float("inf"), 0.0)
    allowed = ops.where(mask, logit, ops.expand_dims(ops.cast(nothing, logit.dtype), 1))
    total = ops.logsumexp(allowed, axis=1)
    return ops.where(some, total, ops.zeros_like(total))
