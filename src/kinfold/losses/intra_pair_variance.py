"""Intra-pair variance loss."""

from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32, count_in_row, divide, sum_at
from kinfold.losses.means import TwoMeansLoss
from kinfold.losses.whole_batch import in_all, table
from kinfold.streaming import Problem
from kinfold.streaming.problem import snapshot


@keras.saving.register_keras_serializable("kinfold")
class IntraPairVarianceLoss(TwoMeansLoss):
    """Intra-pair variance loss: pulls the pairs of a kind that are worse than their mean to it.

    With the cosine similarity s, and its mean m_P over the positive pairs P and m_N over the
    negative pairs N of the batch:

        mean_P relu((1 - positive_epsilon) m_P - s)^2
            + mean_N relu(s - (1 + negative_epsilon) m_N)^2

    It is a regularizer, to add to another loss. Means are over pairs of the whole batch; without
    reduction, the losses of the anchors add up to that of the batch.

    Args:
        positive_epsilon: slack of the positive pairs, as a share of their mean.
        negative_epsilon: slack of the negative pairs, as a share of their mean.

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: a parameter is not a number.
        ValueError: an unknown reduction.

    Reference:
        Yu and Tao, Deep Metric Learning with Tuplet Margin Loss, ICCV 2019

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import IntraPairVarianceLoss
    >>> x = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]], "float32")
    >>> print(f"{float(IntraPairVarianceLoss()(np.array([0, 0, 1, 1]), x)):.4f}")
    0.0445
    """

    def __init__(
        self,
        positive_epsilon: float = 0.01,
        negative_epsilon: float = 0.01,
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "intra_pair_variance_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__("cosine", remove_diagonal, *shared)
        self.positive_epsilon = checks.number(positive_epsilon, "positive_epsilon")
        self.negative_epsilon = checks.number(negative_epsilon, "negative_epsilon")

    def problem(self, *args: Any, **kwargs: Any) -> Problem:
        # Each anchor takes both means along, so that gradients reach all pairs through them.
        given = super().problem(*args, **kwargs)
        problem = snapshot(given)
        if given.with_itself():
            total = self._totals(problem.x, problem.labels)
        else:
            total = in_all(problem, table(self, problem, self._sums, 4))
        one = ops.ones_like(at_least_float32(problem.x[:, 0]))
        means = (one * divide(total[i], ops.stop_gradient(total[i + 1])) for i in (0, 2))
        return problem._replace(extra=tuple(means))

    def _totals(self, x: Tensor, y: Tensor) -> Any:
        """What `_sums` has of all anchors, from the sums of the classes: without a single pair.

        The products of all pairs of a set add up to the square of the sum of its rows.
        """
        x, n = at_least_float32(x), ops.shape(x)[0]
        order = ops.argsort(y)
        x, y = ops.take(x, order, axis=0), ops.take(y, order)
        begins = ops.concatenate(
            [ops.zeros_like(y[:1], "int32"), ops.cast(y[1:] != y[:-1], "int32")]
        )
        number = ops.cumsum(begins)
        one = ops.ones_like(x[:, 0])
        of_class, count = sum_at(x, number, n), sum_at(one, number, n)
        alike, pairs = ops.sum(of_class * of_class), ops.sum(count * count)
        every = ops.sum(ops.square(ops.sum(x, axis=0)))
        own, owns = (ops.sum(x * x), ops.sum(one)) if self.remove_diagonal else (0.0, 0.0)
        return alike - own, pairs - owns, every - alike, ops.square(ops.sum(one)) - pairs

    def _sums(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Any:
        parts: list[Tensor] = []
        for mask in (positive, negative):
            parts += _sum(1.0 - distance, mask)
        return ops.stack(parts, axis=1), ops.ones_like(parts[0])

    def sides(self, distance: Tensor, positive: Tensor, negative: Tensor, *extra: Tensor) -> Any:
        near, far = (ops.expand_dims(mean, 1) for mean in extra)
        similarity = 1.0 - distance
        below = ops.relu((1 - self.positive_epsilon) * near - similarity)
        above = ops.relu(similarity - (1 + self.negative_epsilon) * far)
        return *_sum(ops.square(below), positive), *_sum(ops.square(above), negative)

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "positive_epsilon": self.positive_epsilon,
            "negative_epsilon": self.negative_epsilon,
        }
        del config["distance"]
        return config


def _sum(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over the mask, and how many there are; [t] each."""
    total = ops.sum(ops.where(mask, values, ops.zeros_like(values)), axis=1)
    return total, ops.cast(count_in_row(mask), values.dtype)
