"""Ranked list loss."""

from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import divide
from kinfold.losses.base import PairLoss


@keras.saving.register_keras_serializable("kinfold")
class RankedListLoss(PairLoss):
    """Ranked list loss: positives within a boundary, negatives beyond another, the worst first.

    With the distance d and the inner boundary alpha - margin, for an anchor with positives P and
    negatives N:

        (1 - balance) mean_{p in P, d_p > alpha - margin}(d_p - (alpha - margin))
            + balance mean_{n in N, d_n < alpha}(alpha - d_n)

    where both means are weighted by exp(temperature * term), so that the terms that are furthest
    beyond their boundary count more.

    Args:
        margin: between the two boundaries.
        negative_temperature: of the weights of negatives, at least 0; 0 weighs all alike.
        balance: share of the negatives' term, from 0 to 1.
        alpha: the outer boundary, in units of the distance; None means 1 + margin / 2.
        positive_temperature: of the weights of positives, at least 0.

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: a parameter is not a number.
        ValueError: a parameter out of range, an unknown distance or reduction, or a similarity as
            the distance.

    Reference:
        Wang et al., Ranked List Loss for Deep Metric Learning, CVPR 2019,
        https://arxiv.org/abs/1903.03238

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import RankedListLoss
    >>> x = np.array([[1, 0], [0, 1], [0.8, 0.6]], "float32")
    >>> print(f"{float(RankedListLoss()(np.array([0, 0, 1]), x)):.4f}")
    0.5254
    """

    def __init__(
        self,
        margin: float = 0.4,
        negative_temperature: float = 10.0,
        balance: float = 0.5,
        alpha: float | None = None,
        positive_temperature: float = 0.0,
        distance: Any = "euclidean",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "ranked_list_loss",
        dtype: Any = None,
        *,
        normalize: bool = True,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)
        self.refuse_similarity()
        self.margin = checks.number(margin, "margin")
        self.negative_temperature = checks.number(
            negative_temperature, "negative_temperature", least=0.0
        )
        self.balance = checks.number(balance, "balance", least=0.0)
        if self.balance > 1:
            raise ValueError(f"`balance` must be from 0 to 1. Received: balance={balance}.")
        self.alpha = 1 + self.margin / 2 if alpha is None else checks.number(alpha, "alpha")
        self.positive_temperature = checks.number(
            positive_temperature, "positive_temperature", least=0.0
        )

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        beyond = distance - (self.alpha - self.margin)
        near = _mean_of_worst(beyond, positive, self.positive_temperature)
        far = _mean_of_worst(self.alpha - distance, negative, self.negative_temperature)
        return (1 - self.balance) * near + self.balance * far

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "margin": self.margin,
            "negative_temperature": self.negative_temperature,
            "balance": self.balance,
            "alpha": self.alpha,
            "positive_temperature": self.positive_temperature,
        }


def _mean_of_worst(gap: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Mean [t] of the gaps above 0, weighted by exp(temperature * gap)."""
    mask, zero = ops.logical_and(mask, gap > 0), ops.zeros_like(gap)
    gap = ops.where(mask, gap, zero)
    # Relative to the largest weight, which divides out and so cannot overflow.
    largest = ops.stop_gradient(ops.max(gap, axis=1, keepdims=True))
    weight = ops.where(mask, ops.exp(temperature * (gap - largest)), zero)
    return divide(ops.sum(weight * gap, axis=1), ops.sum(weight, axis=1))
