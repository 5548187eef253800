"""The equations of pytorch-metric-learning, of a block of anchors.

Each takes the distance object, its matrix of the block [t, m], and how often each pair is a
positive and a negative one, floating [t, m]. It returns the losses of the elements, [t, m] of pairs
or [t, 1] of anchors, and how often each is an element.
"""

import math
from collections.abc import Callable
from typing import Any

from keras import ops

from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row, divide, log_sum_exp, softplus, square_root

Equation = Callable[..., tuple[Tensor, ...]]


def near_hinges(margin: float) -> Equation:
    """relu(d - margin) of positive pairs."""
    return lambda d, mat, positive, _: (ops.relu(d.margin(mat, margin)), positive)


def far_hinges(margin: float) -> Equation:
    """relu(margin - d) of negative pairs."""
    return lambda d, mat, _, negative: (ops.relu(d.margin(margin, mat)), negative)


def circle(m: float, gamma: float) -> Equation:
    def losses(_: Any, mat: Tensor, positive: Tensor, negative: Tensor) -> Any:
        fixed = ops.stop_gradient(mat)
        near = -gamma * ops.relu(1 + m - fixed) * (mat - (1 - m))
        far = gamma * ops.relu(fixed + m) * (mat - m)
        both = log_sum_exp(near, positive > 0) + log_sum_exp(far, negative > 0)
        valid = ops.logical_and(any_in_row(positive > 0), any_in_row(negative > 0))
        return _anchors(ops.where(valid, softplus(both), ops.zeros_like(both)))

    return losses


def multi_similarity(alpha: float, beta: float, base: float) -> Equation:
    def losses(d: Any, mat: Tensor, positive: Tensor, negative: Tensor) -> Any:
        near = _side(alpha, d.margin(mat, base), positive)
        return _anchors(near + _side(beta, d.margin(base, mat), negative))

    return losses


def _side(scale: float, gap: Tensor, times: Tensor) -> Tensor:
    """log(1 + sum exp(scale * gap)) / scale, and 0 of none."""
    side = softplus(log_sum_exp(scale * gap, times > 0)) / scale
    return ops.where(any_in_row(times > 0), side, ops.zeros_like(side))


def sup_con(temperature: float) -> Equation:
    def losses(d: Any, mat: Tensor, positive: Tensor, negative: Tensor) -> Any:
        logit = _closeness(d, mat) / temperature
        some = positive > 0
        every = log_sum_exp(logit, ops.logical_or(some, negative > 0))[:, None]
        gap = ops.where(some, every - logit, ops.zeros_like(logit))
        number = ops.sum(ops.cast(some, mat.dtype), axis=1)
        return _anchors(divide(ops.sum(gap, axis=1), number))

    return losses


def nt_xent(temperature: float) -> Equation:
    def losses(d: Any, mat: Tensor, positive: Tensor, negative: Tensor) -> Any:
        logit = _closeness(d, mat) / temperature
        return _against(logit, negative, logit), positive

    return losses


def tuplet_margin(margin: float, scale: float) -> Equation:
    margin = math.radians(margin)

    def losses(_: Any, mat: Tensor, positive: Tensor, negative: Tensor) -> Any:
        inside = ops.clip(mat, -1.0, 1.0)
        sine = square_root(1 - inside**2)
        turned = inside * math.cos(margin) + sine * math.sin(margin)
        return _against(scale * turned, negative, scale * mat), positive

    return losses


def _against(own: Tensor, negative: Tensor, logit: Tensor) -> Tensor:
    """log(1 + sum_n exp(logit_n - own_p)) of every pair p, 0 without negatives: [t, m]."""
    some = negative > 0
    often = ops.log(ops.where(some, negative, ops.ones_like(negative)))
    others = log_sum_exp(logit + often, some)[:, None]
    return ops.where(any_in_row(some)[:, None], softplus(others - own), ops.zeros_like(own))


def generalized_lifted(negative_margin: float, positive_margin: float) -> Equation:
    def losses(d: Any, mat: Tensor, positive: Tensor, negative: Tensor) -> Any:
        near = _sum_or_0(d.margin(mat, positive_margin), positive > 0)
        far = _sum_or_0(d.margin(negative_margin, mat), negative > 0)
        return _anchors(ops.relu(near + far))

    return losses


def _sum_or_0(logit: Tensor, mask: Tensor) -> Tensor:
    total = log_sum_exp(logit, mask)
    return ops.where(any_in_row(mask), total, ops.zeros_like(total))


def nca(scale: float) -> Equation:
    def losses(d: Any, mat: Tensor, positive: Tensor, negative: Tensor) -> Any:
        logit = scale * _closeness(d, mat)
        some = positive > 0
        every = log_sum_exp(logit, ops.logical_or(some, negative > 0))
        valid = any_in_row(some)
        loss = ops.where(valid, every - log_sum_exp(logit, some), ops.zeros_like(every))
        return loss[:, None], ops.cast(valid, mat.dtype)[:, None]

    return losses


def ranked_list(
    margin: float, imbalance: float, alpha: float, temperatures: tuple[float, float]
) -> Equation:
    def losses(_: Any, mat: Tensor, positive: Tensor, negative: Tensor) -> Any:
        inner = alpha - margin
        # As there: a pair at the distance 0 counts as none, and each weight has 1e-5 more.
        near = ops.logical_and(positive > 0, ops.logical_and(mat > inner, mat > 0))
        far = ops.logical_and(negative > 0, ops.logical_and(mat < alpha, mat > 0))
        near = _weighted_mean(mat - inner, near, temperatures[0])
        far = _weighted_mean(alpha - mat, far, temperatures[1])
        return _anchors((1 - imbalance) * near + imbalance * far)

    return losses


def _weighted_mean(gap: Tensor, mask: Tensor, temperature: float) -> Tensor:
    zero = ops.zeros_like(gap)
    gap = ops.where(mask, gap, zero)
    weight = ops.where(mask, ops.exp(temperature * gap), zero)
    return ops.sum(weight * gap, axis=1) / ops.sum(weight + 1e-5, axis=1)


def near_excess(margin: float, weight: float) -> Equation:
    """weight * (margin - s) of the positive pairs with a similarity of at most the margin."""

    def losses(_: Any, mat: Tensor, positive: Tensor, negative: Tensor) -> Any:
        return weight * (margin - mat), ops.where(mat <= margin, positive, ops.zeros_like(mat))

    return losses


def far_excess(margin: float, weight: float) -> Equation:
    """weight * (s - margin) of the negative pairs with a similarity of at least the margin."""

    def losses(_: Any, mat: Tensor, positive: Tensor, negative: Tensor) -> Any:
        return weight * (mat - margin), ops.where(mat >= margin, negative, ops.zeros_like(mat))

    return losses


def near_itself(_: Any, mat: Tensor, positive: Tensor, negative: Tensor) -> Any:
    """The distance of each positive pair."""
    return mat, positive


def far_itself(_: Any, mat: Tensor, positive: Tensor, negative: Tensor) -> Any:
    """The distance of each negative pair."""
    return mat, negative


def near_variance(epsilon: float) -> Equation:
    """By how much each positive pair is further than the mean [t] of all, squared."""

    def losses(d: Any, mat: Tensor, positive: Tensor, negative: Tensor, mean: Tensor) -> Any:
        slack = 1 - epsilon if d.is_inverted else 1 + epsilon
        return ops.square(ops.relu(d.margin(mat, slack * mean[:, None]))), positive

    return losses


def far_variance(epsilon: float) -> Equation:
    """By how much each negative pair is closer than the mean [t] of all, squared."""

    def losses(d: Any, mat: Tensor, positive: Tensor, negative: Tensor, mean: Tensor) -> Any:
        slack = 1 + epsilon if d.is_inverted else 1 - epsilon
        return ops.square(ops.relu(d.margin(slack * mean[:, None], mat))), negative

    return losses


def instance(gamma: float) -> Equation:
    """The softmax of each row against the one whose position [t] is given."""

    def losses(_: Any, mat: Tensor, positive: Tensor, negative: Tensor, at: Tensor) -> Any:
        at = ops.cast(at, "int32")[:, None]
        logit = gamma * mat
        own = ops.take_along_axis(logit, at, axis=1)[:, 0]
        return _anchors(log_sum_exp(logit) - own)

    return losses


def _closeness(d: Any, mat: Tensor) -> Tensor:
    return mat if d.is_inverted else -mat


def _anchors(loss: Tensor) -> tuple[Tensor, Tensor]:
    """Losses [t] of anchors, each of which is an element."""
    return loss[:, None], ops.ones_like(loss)[:, None]


def margin(margin: float, nu: float) -> Equation:
    """relu(d_p - beta + margin) + relu(beta - d_n + margin) of every triplet, in sums of rows.

    It takes the beta of each anchor [t], and returns the sum over its triplets [t], with nu * beta
    of each, their number, and the number of hinges above 0 that the peer divides by.
    """

    def losses(d: Any, mat: Tensor, positive: Tensor, negative: Tensor, beta: Tensor) -> Any:
        beta = beta[:, None]
        near, near_above, positives = _hinges(d.margin(mat, beta) + margin, positive)
        far, far_above, negatives = _hinges(d.margin(beta, mat) + margin, negative)
        number = positives * negatives
        total = negatives * near + positives * far + number * nu * beta[:, 0]
        return total, number, negatives * near_above + positives * far_above

    return losses


def _hinges(gap: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of relu(gap), how many are above 0, and how many there are; [t] each."""
    hinge = ops.where(times > 0, ops.relu(gap), ops.zeros_like(gap))
    above = ops.cast(hinge > 0, gap.dtype)
    return ops.sum(hinge * times, 1), ops.sum(above * times, 1), ops.sum(times, 1)
