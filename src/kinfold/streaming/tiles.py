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

from typing import Any, NamedTuple, Protocol

from keras import ops

from kinfold.checks import Tensor


class Family(Protocol):
    """What a loss of the family says of itself."""

    def positive_logit(self, distance: Tensor) -> Tensor: ...
    def negative_logit(self, distance: Tensor) -> Tensor: ...
    def positive_slope(self, distance: Tensor) -> Tensor: ...
    def negative_slope(self, distance: Tensor) -> Tensor: ...
    def combine(self, positive: Tensor, negative: Tensor) -> Tensor: ...

    distance: Any


class Side(NamedTuple):
    """Of the anchors along one side of a tile, [b] each."""

    positive: Tensor  # P, infinite where there is none
    negative: Tensor  # N
    positive_weight: Tensor  # a
    negative_weight: Tensor  # b


def clean_sums(family: Family, xi: Tensor, xj: Tensor) -> tuple[Tensor, Tensor]:
    """N of the rows and of the columns of a tile that holds negative pairs only."""
    n = family.negative_logit(family.distance.of_dot(xi @ ops.transpose(xj)))
    return _lse(n, 1), _lse(n, 0)


def mixed_sums(
    family: Family, xi: Tensor, xj: Tensor, positive: Tensor, negative: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(P, N) of the rows and of the columns of a tile; -inf where there is no such pair."""
    d = family.distance.of_dot(xi @ ops.transpose(xj))
    infinite = ops.full_like(d, -float("inf"))
    p = ops.where(positive, family.positive_logit(d), infinite)
    n = ops.where(negative, family.negative_logit(d), infinite)
    return (_lse(p, 1), _lse(n, 1)), (_lse(p, 0), _lse(n, 0))


def clean_gradient(family: Family, xi: Tensor, xj: Tensor, row: Side, column: Side) -> Tensor:
    """M of a tile that holds negative pairs only."""
    d = family.distance.of_dot(xi @ ops.transpose(xj))
    return family.distance.dot_slope(d) * _pull(
        family.negative_logit(d),
        family.negative_slope(d),
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
    infinite, zero = ops.full_like(d, -float("inf")), ops.zeros_like(d)
    # A logit that is not allowed is -inf, and so is its exponential nothing.
    p = _pull(
        ops.where(positive, family.positive_logit(d), infinite),
        family.positive_slope(d),
        (row.positive, row.positive_weight),
        (column.positive, column.positive_weight),
    )
    n = _pull(
        ops.where(negative, family.negative_logit(d), infinite),
        family.negative_slope(d),
        (row.negative, row.negative_weight),
        (column.negative, column.negative_weight),
    )
    slope = family.distance.dot_slope(d)
    return slope * (ops.where(positive, p, zero) + ops.where(negative, n, zero))


def _pull(logit: Tensor, slope: Tensor, row: Any, column: Any) -> Tensor:
    (lse_i, weight_i), (lse_j, weight_j) = row, column
    i = ops.exp(logit - ops.expand_dims(lse_i, 1)) * ops.expand_dims(weight_i, 1)
    j = ops.exp(logit - ops.expand_dims(lse_j, 0)) * ops.expand_dims(weight_j, 0)
    return slope * (i + j)


def _lse(values: Tensor, axis: int) -> Tensor:
    """Log-sum-exp along an axis, -inf for nothing; no gradient goes through here."""
    largest = ops.max(values, axis=axis, keepdims=True)
    some = largest > -float("inf")
    largest = ops.where(some, largest, ops.zeros_like(largest))
    total = ops.sum(ops.exp(values - largest), axis=axis)
    return ops.squeeze(largest, axis=axis) + ops.log(total)
