"""What pytorch-metric-learning averages otherwise than `kinfold.losses` does."""

from typing import Any

import keras
from keras import ops

from kinfold import losses
from kinfold.compat.pytorch_metric_learning.reducers import BaseReducer
from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row, count_in_row, log_sum_exp, softplus, unit_rows
from kinfold.losses.lifted_structure import NONE, log_add
from kinfold.streaming import Problem


class Hinges(losses.PairLoss):
    """Sum of relu(d - margin) over positives, or of relu(margin - d) over negatives.

    A mean counts those above 0.
    """

    def __init__(self, of_positives: bool, margin: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.of_positives, self.margin = of_positives, margin

    def valid_anchors(self, positive: Tensor, negative: Tensor) -> Tensor:
        return any_in_row(positive if self.of_positives else negative)

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Any:
        mask, gap = negative, self.margin - distance
        if self.of_positives:
            mask, gap = positive, -gap
        hinge = ops.where(mask, ops.relu(gap), ops.zeros_like(gap))
        return ops.sum(hinge, axis=1), ops.sum(ops.sign(hinge), axis=1)


class MultiSimilarity(losses.MultiSimilarityLoss):
    """Each side counts where there are pairs of it, in every anchor of the batch."""

    def valid_anchors(self, positive: Tensor, negative: Tensor) -> Tensor:
        return any_in_row(ops.logical_or(positive, negative))

    def counted(self, counted: Tensor) -> Tensor:
        return ops.ones_like(counted)

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        sides = (
            (self.positive_logit(distance), positive, self.alpha),
            (self.negative_logit(distance), negative, self.beta),
        )
        loss = ops.zeros_like(distance[:, 0])
        for logit, mask, scale in sides:
            side = softplus(log_sum_exp(logit, mask)) / scale
            loss = loss + ops.where(any_in_row(mask), side, ops.zeros_like(side))
        return loss


class SupCon(losses.SupConLoss):
    """Anchors without negatives count, those with a loss of 0 do not."""

    def valid_anchors(self, positive: Tensor, negative: Tensor) -> Tensor:
        return any_in_row(positive)

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Any:
        loss = super().per_anchor(distance, positive, negative)
        return loss, ops.cast(loss > 0, loss.dtype)


class NTXent(losses.NTXentLoss):
    """The mean is over positive pairs; one without negatives beside it counts as 0."""

    def valid_anchors(self, positive: Tensor, negative: Tensor) -> Tensor:
        return any_in_row(positive)

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Any:
        total, count = self.per_pair(distance, positive, negative)
        return ops.where(any_in_row(negative), total, ops.zeros_like(total)), count


class TupletMargin(losses.TupletMarginLoss):
    """A pair counts whether or not there are negatives beside it; without, it counts as 0."""

    def valid_anchors(self, positive: Tensor, negative: Tensor) -> Tensor:
        return any_in_row(positive)

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Any:
        total, count = super().per_anchor(distance, positive, negative)
        return ops.where(any_in_row(negative), total, ops.zeros_like(total)), count


class Angular(losses.AngularLoss):
    """Anchors and positives of unit norm, negatives as they are; every positive pair counts."""

    def __init__(self, alpha: float, *, normalize: bool, **kwargs: Any) -> None:
        super().__init__(alpha, **kwargs)
        self._norms_checked = True

    def _tensors(self, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return unit_rows(x), unit_rows(r), r

    def counted_pairs(self, pairs: Tensor, some_negative: Tensor) -> Tensor:
        return pairs


class NCA(losses.SoftNearestNeighborLoss):
    """Anchors without negatives count, as 0."""

    def valid_anchors(self, positive: Tensor, negative: Tensor) -> Tensor:
        return any_in_row(positive)

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        loss = super().per_anchor(distance, positive, negative)
        return ops.where(any_in_row(negative), loss, ops.zeros_like(loss))


class GeneralizedLifted(losses.GeneralizedLiftedStructureLoss):
    """Every anchor counts; a side without pairs adds nothing."""

    def valid_anchors(self, positive: Tensor, negative: Tensor) -> Tensor:
        return ops.ones_like(positive[:, 0])


class Lifted(losses.LiftedStructureLoss):
    """A pair counts whether or not there are negatives beside it."""

    def valid_anchors(self, positive: Tensor, negative: Tensor) -> Tensor:
        return any_in_row(positive)


class LiftedToReferences(Lifted):
    """The peer's way: the negatives of a reference are those of the anchor of the same index.

    A pair of equal indices counts them once.
    """

    def problem(self, *args: Any, **kwargs: Any) -> Problem:
        problem = super(losses.LiftedStructureLoss, self).problem(*args, **kwargs)
        if problem.rows:
            raise NotImplementedError(
                "LiftedStructureLoss with references takes the negatives of the anchor of the same "
                "index, which is no rule for several ranks. Use kinfold.losses.LiftedStructureLoss."
            )
        own = self._negatives_of(problem)
        (part,) = problem.parts
        n, m = ops.shape(own)[0], ops.shape(part.embeddings)[0]
        of_references = ops.pad(own, [[0, max(m - n, 0)]], constant_values=NONE)[:m]
        extra, of_references = ((o, _numbers(o)) for o in (own, of_references))
        return problem._replace(extra=extra, parts=(part._replace(extra=of_references),))

    def per_anchor(
        self, distance: Tensor, positive: Tensor, negative: Tensor, *extra: Tensor
    ) -> Any:
        own, i, of_references, j = extra
        index = ops.equal(ops.expand_dims(i, 1), ops.expand_dims(j, 0))
        both = log_add(own, of_references)
        return self.over_positives(
            distance, positive, ops.where(index, ops.expand_dims(own, 1), both)
        )


def _numbers(like: Tensor) -> Tensor:
    """0, 1, 2 and so on, of the dtype of `like` [n], as what a loss takes beside distances."""
    return ops.arange(ops.shape(like)[0], dtype=keras.backend.standardize_dtype(like.dtype))


class Weighed(losses.PairLoss):
    """Anchors with a positive are elements, times a weight, which a reducer makes one number of.

    It stands before the class of a loss.
    """

    def __init__(self, reducer: BaseReducer, times: Tensor, *args: Any, **kwargs: Any) -> None:
        kwargs["reduction"] = "sum" if reducer.sums else "sum_over_batch_size"
        super().__init__(*args, **kwargs)
        self.reducer, self.times = reducer, times

    def problem(self, *args: Any, **kwargs: Any) -> Problem:
        return super().problem(*args, **kwargs)._replace(extra=(self.times,))

    def per_anchor(
        self, distance: Tensor, positive: Tensor, negative: Tensor, *extra: Tensor
    ) -> Any:
        loss = super().per_anchor(distance, positive, negative) * extra[0]
        some = ops.cast(any_in_row(positive), loss.dtype)
        return self.reducer.of_rows(loss[:, None], some[:, None])


class FastAP(Weighed, losses.FastAPLoss):
    """FastAP, weighed."""


class SmoothAP(losses.SmoothAPLoss):
    """An anchor is a positive of itself, and every one counts."""

    def valid_anchors(self, positive: Tensor, negative: Tensor) -> Tensor:
        return any_in_row(positive)


class WeighedSmoothAP(Weighed, SmoothAP):
    """Smooth-AP, weighed."""


class PNP(losses.PNPLoss):
    """An anchor is a positive of itself, and counts if it has another one."""

    def valid_anchors(self, positive: Tensor, negative: Tensor) -> Tensor:
        return count_in_row(positive) > 1
