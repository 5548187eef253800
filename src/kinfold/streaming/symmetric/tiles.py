"""One tile of a symmetric distance matrix, for losses of the log-sum-exp family.

Such a loss is softly the largest positive and negative logit of each anchor's row,

    loss_i = combine(P_i, N_i),  P_i = LSE_{j in P} p(d_ij),  N_i = LSE_{j in N} n(d_ij),

and where the references are the anchors, d_ij = d_ji: a tile of rows i and columns j serves the
anchors of both sides. With a_i = w_i dcombine/dP_i and b_i = w_i dcombine/dN_i, the derivative of
sum_i w_i loss_i with respect to a dot product x_i.x_j is the entry of

    M_ij = d'(x_i.x_j) * (p'(d_ij) (a_i e^(p - P_i) + a_j e^(p - P_j))    for a positive pair
                          n'(d_ij) (b_i e^(n - N_i) + b_j e^(n - N_j)))   for a negative pair

so that dx_i = sum_j M_ij x_j: four products of n/2 tiles in all, where autodiff takes six of n.
"""

from typing import Any, NamedTuple

from keras import ops

from kinfold.core.checks import Tensor
from kinfold.streaming.family import Family
from kinfold.streaming.log_sums import LogSum, finite, log_sum


class Side(NamedTuple):
    """Of the anchors along one side of a tile, [b] each; an invalid one's largest is inf."""

    positive: Tensor  # the largest logit
    negative: Tensor
    positive_weight: Tensor  # a over the total
    negative_weight: Tensor  # b over the total


def negatives_only_sums(family: Family, xi: Tensor, xj: Tensor) -> tuple[LogSum, LogSum]:
    """N of the rows and of the columns of a tile that holds negative pairs only."""
    n = family.negative.value(family.distance.of_dot(xi @ ops.transpose(xj)))
    return log_sum(n, 1), log_sum(n, 0)


def mixed_sums(
    family: Family, xi: Tensor, xj: Tensor, positive: Tensor, negative: Tensor
) -> tuple[tuple[LogSum, LogSum], tuple[LogSum, LogSum]]:
    """(P, N) of the rows and of the columns of a tile."""
    p, n = _logits(family, family.distance.of_dot(xi @ ops.transpose(xj)), positive, negative)
    return (log_sum(p, 1), log_sum(n, 1)), (log_sum(p, 0), log_sum(n, 0))


def negatives_only_gradient(
    family: Family, xi: Tensor, xj: Tensor, row: Side, column: Side
) -> Tensor:
    """M of a tile that holds negative pairs only."""
    d = family.distance.of_dot(xi @ ops.transpose(xj))
    return family.distance.dot_slope(d) * _pull(
        family.negative.value(d),
        family.negative.slope(d),
        (row.negative, row.negative_weight),
        (column.negative, column.negative_weight),
    )


def mixed_gradient(
    family: Family,
    xi: Tensor,
    xj: Tensor,
    row: Side,
    column: Side,
    positive: Tensor,
    negative: Tensor,
) -> Tensor:
    """M of a tile; `positive` and `negative` are the masks of its pairs."""
    d = family.distance.of_dot(xi @ ops.transpose(xj))
    zero = ops.zeros_like(d)
    p, n = _logits(family, d, positive, negative)
    p = _pull(
        p,
        family.positive.slope(d),
        (row.positive, row.positive_weight),
        (column.positive, column.positive_weight),
    )
    n = _pull(
        n,
        family.negative.slope(d),
        (row.negative, row.negative_weight),
        (column.negative, column.negative_weight),
    )
    slope = family.distance.dot_slope(d)
    return slope * (ops.where(positive, p, zero) + ops.where(negative, n, zero))


def whole_sums(
    family: Family, d: Tensor, positive: Tensor, negative: Tensor
) -> tuple[tuple[LogSum, LogSum], Tensor]:
    """P and N of each anchor of a batch that is one tile, and exp(logit - largest) of each pair.

    The gradient takes these very exponentials: computed again, a large logit rounds differently.
    """
    zero, nothing = ops.zeros_like(d), ops.full_like(d[:, 0], -float("inf"))
    logits = _logits(family, d, positive, negative)
    p, n = (finite(ops.max(logit, axis=1, keepdims=True)) for logit in logits)
    logit = ops.where(positive, logits[0], logits[1]) - ops.where(positive, p, n)
    e = ops.where(ops.logical_or(positive, negative), ops.exp(logit), zero)

    def of_side(mask: Tensor, largest: Tensor) -> LogSum:
        largest = ops.where(ops.any(mask, axis=1), ops.squeeze(largest, axis=1), nothing)
        return LogSum(largest, ops.sum(ops.where(mask, e, zero), axis=1))

    return (of_side(positive, p), of_side(negative, n)), e


def whole_gradient(
    family: Family, x: Tensor, d: Tensor, e: Tensor, side: Side, positive: Tensor
) -> Tensor:
    """dx of a batch that is one tile: rows alone give G, and M = G + G^T."""
    a, b = (ops.expand_dims(w, 1) for w in (side.positive_weight, side.negative_weight))
    slope = ops.where(positive, family.positive.slope(d), family.negative.slope(d))
    g = e * ops.where(positive, a, b) * slope * family.distance.dot_slope(d)
    return (g + ops.transpose(g)) @ x


def _logits(family: Family, d: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """A logit that is not allowed is -inf, and so is its exponential nothing."""
    infinite = ops.full_like(d, -float("inf"))
    return (
        ops.where(positive, family.positive.value(d), infinite),
        ops.where(negative, family.negative.value(d), infinite),
    )


def _pull(logit: Tensor, slope: Tensor, row: Any, column: Any) -> Tensor:
    (largest_i, weight_i), (largest_j, weight_j) = row, column
    i = ops.exp(logit - ops.expand_dims(largest_i, 1)) * ops.expand_dims(weight_i, 1)
    j = ops.exp(logit - ops.expand_dims(largest_j, 0)) * ops.expand_dims(weight_j, 0)
    return slope * (i + j)
