"""Losses that have the losses of all anchors at once, not each from its row alone."""

from typing import Any

from keras import ops

from kinfold.core.checks import Tensor
from kinfold.losses.base import PairLoss
from kinfold.streaming import Problem, roads


class WholeBatchLoss(PairLoss):
    """A pair loss that is no function of an anchor's row; a subclass defines `of_anchors`."""

    def of_anchors(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """Loss of each anchor, and what a mean counts of it, floating [n] each."""
        raise NotImplementedError

    def _rows(self, problem: Problem) -> Tensor:
        return self.of_anchors(problem)[0]

    def _weighted_sum(self, problem: Problem, weights: Tensor) -> tuple[Tensor, Tensor]:
        losses, counted = self.of_anchors(problem)
        return ops.sum(losses * weights), counted


def table(loss: PairLoss, problem: Problem, row: Any, width: int) -> Tensor:
    """Several numbers of each anchor [n, width], by blocks; 0 where there are no pairs.

    Args:
        row: from a block's distances, positives, negatives [t, m] and extras, numbers [t, width],
            and anything [t].
    """
    roads.chosen(loss, problem)  # raises where one is forced that is not for this loss
    rows = roads.streamed_rows(loss, problem, row)[0]
    if len(rows.shape) == 2:
        return rows
    return ops.repeat(ops.expand_dims(rows, 1), width, axis=1)  # 0, and takes part in a gradient


def in_all(problem: Problem, rows: Tensor) -> Tensor:
    """Sum [k] over the anchors, of all ranks, of their rows [n, k]."""
    total = ops.sum(rows, axis=0)
    return problem.rows.ranks.summed(total) if problem.rows else total
