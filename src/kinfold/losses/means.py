"""Losses that are a mean over all positive pairs plus one over all negative pairs."""

from typing import Any

from keras import ops

from kinfold.core.checks import Tensor
from kinfold.core.numerics import divide
from kinfold.losses.base import PairLoss
from kinfold.streaming import Problem, roads


class TwoMeansLoss(PairLoss):
    """A mean over positive pairs of the whole batch plus a mean over its negative pairs.

    A subclass defines `sides`. Both means are over pairs, whichever anchors they belong to, so no
    anchor is invalid. Without reduction the losses of the anchors add up to that of the batch;
    every other reduction gives that sum (with weights of anchors, which multiply their parts).
    """

    def sides(self, distance: Tensor, positive: Tensor, negative: Tensor, *extra: Tensor) -> Any:
        """Sum and number of the terms of each anchor of a block: of positives, of negatives.

        Args:
            distance: floating [t, m].
            positive: boolean [t, m].
            negative: boolean [t, m].
            *extra: what `problem` adds.

        Returns:
            Four tensors, floating [t]: sum and number of both kinds. Numbers get no gradient.
        """
        raise NotImplementedError

    def _rows(self, problem: Problem) -> Tensor:
        return self._parts(problem)[0]

    def _weighted_sum(self, problem: Problem, weights: Tensor) -> tuple[Tensor, Tensor]:
        losses, share = self._parts(problem)
        return ops.sum(losses * weights), share

    def _parts(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """Each anchor's part of the loss [n], and of what a mean divides by, 1 in all [n]."""
        rows = table(self, problem, self._four, 4)
        numbers = in_all(problem, ops.stop_gradient(rows))
        near = divide(rows[:, 0], ops.ones_like(rows[:, 0]) * numbers[1])
        far = divide(rows[:, 2], ops.ones_like(rows[:, 2]) * numbers[3])
        one = ops.ones_like(near)
        return near + far, one / in_all(problem, one[:, None])

    def _four(self, *of_block: Tensor) -> tuple[Tensor, Tensor]:
        parts = self.sides(*of_block)
        return ops.stack(parts, axis=1), ops.ones_like(parts[0])


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
