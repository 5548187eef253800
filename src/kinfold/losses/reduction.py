"""Weights of anchors and the reductions of Keras, with means over the anchors that count."""

from typing import Any

import keras
from keras import ops

from kinfold import distributed
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import divide


def anchor_weights(sample_weight: Any, like: Tensor) -> Tensor:
    """Weights [n] of the dtype of `like` [n], from None, a scalar, [n] or [n, 1].

    Raises:
        ValueError: any other shape.
    """
    ones = ops.ones_like(like)
    if sample_weight is None:
        return ones
    weight = ops.convert_to_tensor(sample_weight, dtype=keras.backend.standardize_dtype(like.dtype))
    shape, n = checks.known_shape(weight, "sample_weight"), like.shape[0]
    if len(shape) == 2 and shape[1] == 1:
        weight = ops.squeeze(weight, axis=1)
    rank = len(weight.shape)
    if rank > 1 or (rank == 1 and None not in (shape[0], n) and shape[0] != n):
        raise ValueError(
            "`sample_weight` must be a number or have one weight per anchor, shape [batch] or "
            f"[batch, 1], with batch {n}. Received shape {shape}."
        )
    return ones * weight


def reduced(
    total: Tensor, counted: Tensor, weights: Tensor, reduction: str, ranks: Any = None
) -> Tensor:
    """Divide a weighted sum of losses by what the reduction divides by; 0 where that is 0.

    Args:
        total: sum of w_i loss_i, a scalar.
        counted: boolean [n], the anchors that a mean counts.
        weights: w, floating [n].
        reduction: "sum" divides by nothing, "mean_with_sample_weight" by the weight of the counted
            anchors, "mean" and "sum_over_batch_size" by their number.
        ranks: those whose sums are added; see `kinfold.distributed.ranks`.
    """
    if reduction == "sum":
        return ranks.reported(total, None) if ranks else distributed.share(total)
    counted = ops.cast(counted, keras.backend.standardize_dtype(weights.dtype))
    by_weight = reduction == "mean_with_sample_weight"
    count = ops.sum(counted * weights if by_weight else counted)
    return ranks.reported(total, count) if ranks else distributed.share(divide(total, count))
