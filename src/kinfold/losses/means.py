"""Losses that are a mean over all positive pairs plus one over all negative pairs."""

from typing import Any

from keras import ops

from kinfold.core.checks import Tensor
from kinfold.core.numerics import divide
from kinfold.losses.whole_batch import WholeBatchLoss, in_all, table
from kinfold.streaming import Problem


class TwoMeansLoss(WholeBatchLoss):
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

    def of_anchors(self, problem: Problem) -> tuple[Tensor, Tensor]:
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
