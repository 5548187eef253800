"""Lifted structure losses, over both ends of a positive pair and the generalised one."""

from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row, count_in_row, log_sum_exp
from kinfold.losses.base import PairLoss
from kinfold.losses.log_sum_exp import LogSumExpLoss
from kinfold.streaming import Family, Linear, Part, Problem, roads
from kinfold.streaming.problem import snapshot

NONE = -1e30  # the log-sum-exp of no negatives; an infinity would meet a gradient


@keras.saving.register_keras_serializable("kinfold")
class LiftedStructureLoss(PairLoss):
    """Lifted structure loss: lifts each positive pair over the negatives of both of its ends.

    With the distance d, over the positive pairs (i, j), the mean of

        relu(log(sum_{n in N_i} exp(negative_margin - d_in) + sum_{n in N_j} exp(negative_margin
             - d_jn)) + d_ij - positive_margin)^2 / 2

    The negatives of both ends are taken among the references. A mean is over pairs, and without
    reduction the loss of an anchor is the sum over its pairs.

    Args:
        negative_margin: distance that negatives are pushed to.
        positive_margin: distance that positives are pulled to.

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: a margin is not a number.
        ValueError: an unknown distance or reduction, or a similarity as the distance.

    Reference:
        Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016,
        https://arxiv.org/abs/1511.06452

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import LiftedStructureLoss
    >>> x = np.array([[0, 0], [3, 4], [0, 1]], "float32")
    >>> print(f"{float(LiftedStructureLoss()(np.array([0, 0, 1]), x)):.4f}")
    12.6923
    """

    def __init__(
        self,
        negative_margin: float = 1.0,
        positive_margin: float = 0.0,
        distance: Any = "euclidean",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "lifted_structure_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)
        self.refuse_similarity()
        self.negative_margin = checks.number(negative_margin, "negative_margin")
        self.positive_margin = checks.number(positive_margin, "positive_margin")

    def problem(self, *args: Any, **kwargs: Any) -> Problem:
        # Each embedding takes the log-sum-exp over its own negatives along, so that gradients reach
        # it from both ends of a pair.
        problem = snapshot(super().problem(*args, **kwargs))
        if problem.parts[0].labels is None:
            raise ValueError(
                "LiftedStructureLoss needs the negatives of the references too, which a boolean "
                "`y_true` [batch, m] does not tell. Pass class ids, or integers 0 and 1."
            )
        own = self._negatives_of(problem)

        def of_part(part: Part) -> Tensor:
            if part.embeddings is problem.x and part.labels is problem.labels:
                return own
            if part.rows is None:
                return self._negatives_of(problem, part)
            # Of all ranks, each of which computes its own.
            of_batch = part.rows is problem.rows
            return part.rows.gathered(own if of_batch else self._negatives_of(problem, part))

        parts = (part._replace(extra=(of_part(part),)) for part in problem.parts)
        return problem._replace(extra=(own,), parts=tuple(parts))

    def _negatives_of(self, problem: Problem, part: Part | None = None) -> Tensor:
        """The log-sum-exp over the negatives of each anchor, or of each reference of a part."""
        if part is not None:
            x, y, rows = part.embeddings, part.labels, part.rows
            x, y = (rows.own(x), rows.own(y)) if rows else (x, y)
            problem = problem._replace(x=x, labels=y, rows=rows)
        return roads.streamed_rows(self, problem, self._negatives)[0]

    def _negatives(
        self, distance: Tensor, positive: Tensor, negative: Tensor
    ) -> tuple[Tensor, Tensor]:
        some = any_in_row(negative)
        rows = log_sum_exp(self.negative_margin - distance, negative)
        return ops.where(some, rows, ops.full_like(rows, NONE)), some

    def per_anchor(
        self, distance: Tensor, positive: Tensor, negative: Tensor, *extra: Tensor
    ) -> Any:
        i, j = extra
        return self.over_positives(distance, positive, log_add(i, j))

    def over_positives(self, distance: Tensor, positive: Tensor, both: Tensor) -> Any:
        """Sum over an anchor's positives and their number, from both ends' log-sum-exps [t, m]."""
        pair = ops.square(ops.relu(both + distance - self.positive_margin)) / 2.0
        total = ops.sum(ops.where(positive, pair, ops.zeros_like(pair)), axis=1)
        return total, ops.cast(count_in_row(positive), distance.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "negative_margin": self.negative_margin,
            "positive_margin": self.positive_margin,
        }


def log_add(i: Tensor, j: Tensor) -> Tensor:
    """log(exp(i) + exp(j)) of every pair of [t] and [m]: [t, m]."""
    i, j = ops.expand_dims(i, 1), ops.expand_dims(j, 0)
    largest = ops.stop_gradient(ops.where(i > j, i, j))
    return largest + ops.log(ops.exp(i - largest) + ops.exp(j - largest))


@keras.saving.register_keras_serializable("kinfold")
class GeneralizedLiftedStructureLoss(LogSumExpLoss):
    """Generalised lifted structure loss, over the positives and negatives of one anchor.

    With the distance d, for an anchor with positives P and negatives N:

        relu(LSE_P(d - positive_margin) + LSE_N(negative_margin - d))

    Args:
        negative_margin: distance that negatives are pushed to.
        positive_margin: distance that positives are pulled to.

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: a margin is not a number.
        ValueError: an unknown distance or reduction, or a similarity as the distance.

    Reference:
        Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017,
        https://arxiv.org/abs/1703.07737

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import GeneralizedLiftedStructureLoss
    >>> x = np.array([[0, 0], [3, 4], [0, 1]], "float32")
    >>> print(f"{float(GeneralizedLiftedStructureLoss()(np.array([0, 0, 1]), x)):.4f}")
    3.3787
    """

    def __init__(
        self,
        negative_margin: float = 1.0,
        positive_margin: float = 0.0,
        distance: Any = "euclidean",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "generalized_lifted_structure_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)
        self.refuse_similarity()
        self.negative_margin = checks.number(negative_margin, "negative_margin")
        self.positive_margin = checks.number(positive_margin, "positive_margin")

    def family(self) -> Family:
        return Family(GeneralizedLiftedStructureLoss, self.distance, *self.logits(), self.combine)

    def logits(self) -> tuple[Linear, Linear]:
        return Linear(1.0, self.positive_margin), Linear(-1.0, self.negative_margin)

    def combine(self, positive: Tensor, negative: Tensor) -> Tensor:
        return ops.relu(positive + negative)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "negative_margin": self.negative_margin,
            "positive_margin": self.positive_margin,
        }
