"""Angular loss, over the angle at a negative."""

import math
from typing import Any

import keras
from keras import ops

from kinfold import streaming
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row, at_least_float32, log_sum_exp, softplus
from kinfold.losses.whole_batch import WholeBatchLoss
from kinfold.streaming import BlockSizeRule, Problem, roads


@keras.saving.register_keras_serializable("kinfold")
class AngularLoss(WholeBatchLoss):
    """Angular loss: bounds the angle that a positive pair is seen under from a negative.

    For an anchor a with positives P and negatives N, and t = tan(alpha)^2, for each positive p:

        log(1 + sum_{n in N} exp(4 t (a + p).n - 2 (1 + t) a.p))

    A mean is over positive pairs, and without reduction the loss of an anchor is the sum over its
    pairs. Time grows with the largest class of a batch, memory does not.

    Args:
        alpha: the angle in degrees, above 0 and below 90.

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: alpha is not a number.
        ValueError: alpha out of range, or labels that are not class ids.

    Reference:
        Wang et al., Deep Metric Learning with Angular Loss, ICCV 2017,
        https://arxiv.org/abs/1708.01682

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import AngularLoss
    >>> x = np.array([[1, 0], [0.8, 0.6], [0, 1]], "float32")
    >>> print(f"{float(AngularLoss()(np.array([0, 0, 1]), x)):.4f}")
    0.3035
    """

    def __init__(
        self,
        alpha: float = 40.0,
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "angular_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__("cosine", remove_diagonal, *shared)
        self.alpha = checks.number(alpha, "alpha", above=0.0)
        if self.alpha >= 90:
            raise ValueError(f"`alpha` must be below 90 degrees. Received: alpha={alpha}.")

    def of_anchors(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """Sum over the pairs of each anchor [n], and how many a mean counts of it [n]."""
        roads.chosen(self, problem)  # raises where one is forced that is not for this loss
        y = problem.labels
        checks.one_class_each(y, type(self).__name__)
        positions = problem.positions
        r, ref_y, mask = problem.joined()[:3]
        x = problem.x
        x, r = at_least_float32(x), at_least_float32(r)
        m = ops.shape(ref_y)[0]
        if 0 in (x.shape[0], r.shape[0]):
            nothing = ops.sum(x, axis=1) * 0.0
            return nothing, nothing
        counts = ops.ones_like(ref_y, dtype="bool") if mask is None else mask
        if mask is not None:
            y, ref_y = _apart(y, ref_y, counts)
        # References of one class stand together in this order, an anchor's own class from `first`.
        order = ops.cast(ops.argsort(ref_y), "int32")
        in_order = ops.take(ref_y, order)
        first = ops.cast(ops.searchsorted(in_order, y, side="left"), "int32")
        pairs = ops.cast(ops.searchsorted(in_order, y, side="right"), "int32") - first
        some_negative = pairs < ops.sum(ops.cast(counts, "int32"))
        # Where an anchor itself stands among them, to step over it; beyond them where it does not.
        itself = ops.full_like(pairs, m)
        if self.remove_diagonal:
            at = ops.minimum(positions, m - 1)
            among = ops.logical_and(ops.equal(ops.take(ref_y, at), y), positions < m)
            place = ops.cast(ops.take(ops.argsort(order), at), "int32") - first
            itself = ops.where(among, place, itself)
            pairs = pairs - ops.cast(among, "int32")
        data = (y, ref_y, counts, order, first, itself, pairs)
        rows = streaming.repeated(self._kth, ops.max(pairs), self._tensors(x, r), data)
        return rows, ops.cast(self.counted_pairs(pairs, some_negative), rows.dtype)

    def _tensors(self, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Anchors, references as positives and references as negatives."""
        return x, r, r

    def counted_pairs(self, pairs: Tensor, some_negative: Tensor) -> Tensor:
        """How many pairs of each anchor a mean counts, integers [n]."""
        return ops.where(some_negative, pairs, ops.zeros_like(pairs))

    def _kth(
        self,
        k: Any,
        x: Tensor,
        r: Tensor,
        far: Tensor,
        y: Tensor,
        ref_y: Tensor,
        counts: Tensor,
        order: Tensor,
        first: Tensor,
        itself: Tensor,
        pairs: Tensor,
    ) -> Tensor:
        """Loss of each anchor with its k-th positive [n]."""
        place = first + k + ops.cast(itself <= k, "int32")
        index = ops.take(order, ops.minimum(place, ops.shape(order)[0] - 1))
        t = math.tan(math.radians(self.alpha)) ** 2
        p = ops.take(r, index, axis=0)
        near = ops.sum(x * p, axis=1) * (-2.0 * (1.0 + t))
        both, rule = (x + p) * (4.0 * t), BlockSizeRule(self.block_size)
        rows, _ = streaming.per_anchor(
            self._negatives, (both, near), far, (y,), (ref_y, counts), rule
        )
        return ops.where(pairs > k, rows, ops.zeros_like(rows))

    def _negatives(
        self, x: Tensor, near: Tensor, r: Tensor, y: Tensor, ref_y: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        negative = ops.not_equal(ops.expand_dims(y, 1), ops.expand_dims(ref_y, 0))
        negative = ops.logical_and(negative, ops.expand_dims(counts, 0))
        some = any_in_row(negative)
        logit = x @ ops.transpose(r) + ops.expand_dims(near, 1)
        rows = softplus(log_sum_exp(logit, negative))
        return ops.where(some, rows, ops.zeros_like(rows)), some

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "alpha": self.alpha}
        del config["distance"]
        return config


def _apart(y: Tensor, ref_y: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Other ids for the same classes, and one that no anchor has for references left out."""
    in_order, m = ops.sort(ref_y), ops.shape(ref_y)[0]

    def ids(labels: Tensor) -> Tensor:
        place = ops.cast(ops.searchsorted(in_order, labels, side="left"), "int32")
        there = ops.equal(ops.take(in_order, ops.minimum(place, m - 1)), labels)
        return ops.where(there, place, ops.full_like(place, m + 1))

    of_references = ids(ref_y)
    return ids(y), ops.where(counts, of_references, ops.full_like(of_references, m))
