"""N-pairs loss."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row, log_sum_exp, softplus
from kinfold.losses.base import PairLoss
from kinfold.streaming import Part, Problem


@keras.saving.register_keras_serializable("kinfold")
class NPairsLoss(PairLoss):
    """N-pairs loss: the first example of each class against the second ones of all classes.

    With the similarity s, for the first example i of each class and the second ones j, +:

        log(1 + sum_{j of other classes} exp(s_ij - s_i+))

    Any further examples of a class take no part. A mean is over classes with two examples.

    The arguments are those of `PairLoss`.

    Raises:
        ValueError: an unknown distance or reduction; references or labels other than class ids,
            in the call.

    Reference:
        Sohn, Improved Deep Metric Learning with Multi-class N-pair Loss Objective, NIPS 2016

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import NPairsLoss
    >>> x = np.array([[1, 0], [0.5, 0.5], [0, 1], [0, 2]], "float32")
    >>> print(f"{float(NPairsLoss()(np.array([0, 0, 1, 1]), x)):.4f}")
    0.3377
    """

    takes_references = False

    def __init__(
        self,
        distance: Any = "inner_product",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "n_pairs_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)

    def problem(self, y_true: Any, y_pred: Any, *references: Any, **more: Any) -> Problem:
        if any(part is not None for part in (*references, *more.values())):
            raise ValueError(
                "NPairsLoss pairs the examples of one batch and takes no references. "
                "Use NTXentLoss with them."
            )
        problem = super().problem(y_true, y_pred)
        checks.one_class_each(problem.labels, type(self).__name__)
        part, rows = problem.parts[0], problem.rows
        turn = _turns(part.labels)
        first = ops.equal(rows.own(turn) if rows else turn, 0)
        return problem._replace(parts=(part._replace(mask=ops.equal(turn, 1)),), mask=first)

    def _weighted_sum(self, problem: Problem, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Where labels can be looked at, of the first and second examples of each class alone."""
        is_first, is_second = problem.mask, problem.parts[0].mask
        if not checks.is_concrete(is_first):
            return super()._weighted_sum(problem, weights)
        first, second = (
            np.flatnonzero(ops.convert_to_numpy(mask)).astype("int32")
            for mask in (is_first, is_second)
        )
        x, y, every = problem.x, problem.labels, problem.parts[0]
        of_second = (ops.take(side, second, axis=0) for side in (every.embeddings, every.labels))
        part = Part(*of_second)
        few = Problem(ops.take(x, first, axis=0), ops.take(y, first), (part,))
        total, valid = super()._weighted_sum(few, ops.take(weights, first))
        place = np.full(y.shape[0], len(first), "int32")  # that of the False added behind
        place[first] = np.arange(len(first))
        valid = ops.concatenate([valid, ops.zeros_like(weights[:1], dtype="bool")])
        return total, ops.take(valid, place)

    def valid_anchors(self, positive: Tensor, negative: Tensor) -> Tensor:
        return any_in_row(positive)

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        s = self.closeness(distance)
        some = any_in_row(negative)
        own = ops.sum(ops.where(positive, s, ops.zeros_like(s)), axis=1)
        gap = log_sum_exp(s, negative) - own
        gap = ops.where(some, gap, ops.zeros_like(gap))
        return ops.where(some, softplus(gap), ops.zeros_like(gap))


def _turns(y: Tensor) -> Tensor:
    """How many examples of its class come before each, integers [n]."""
    order = ops.argsort(y)
    y = ops.take(y, order)
    first = ops.cast(ops.searchsorted(y, y, side="left"), "int32")
    turn = ops.arange(ops.shape(y)[0], dtype="int32") - first
    return ops.take(turn, ops.argsort(order))
