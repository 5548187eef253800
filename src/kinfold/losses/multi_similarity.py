"""Multi-similarity loss."""

from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import softplus
from kinfold.losses.log_sum_exp import LogSumExpLoss
from kinfold.streaming import Family, Linear


@keras.saving.register_keras_serializable("kinfold")
class MultiSimilarityLoss(LogSumExpLoss):
    """Multi-similarity loss: weighs each pair by how it compares with the others of its anchor.

    With the distance d, for an anchor with positives P and negatives N:

        log(1 + sum_P exp(alpha (d - threshold))) / alpha
        + log(1 + sum_N exp(beta (threshold - d))) / beta

    With an `epsilon`, as in the paper, only pairs that are hard to tell apart count: positives
    further away than the nearest negative less epsilon, and negatives nearer than the furthest
    positive plus epsilon.

    Args:
        alpha: scale of the positives' logits, greater than 0.
        beta: scale of the negatives' logits, greater than 0.
        threshold: the distance between what is near and what is far.
        epsilon: margin of the pairs that count, in units of the distance; None counts all pairs.

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: a parameter is not a number.
        ValueError: alpha or beta <= 0, an unknown distance or reduction, or a similarity as the
            distance.

    Reference:
        Wang et al., Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning,
        CVPR 2019, https://arxiv.org/abs/1904.06627

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import MultiSimilarityLoss
    >>> x = np.array([[1, 0], [0.8, 0.6], [0, 1]], "float32")
    >>> print(f"{float(MultiSimilarityLoss()(np.array([0, 0, 1]), x)):.4f}")
    0.2688
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        threshold: float = 0.5,
        epsilon: float | None = None,
        distance: Any = "cosine",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "multi_similarity_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)
        self.refuse_similarity()
        self.alpha = checks.number(alpha, "alpha", above=0.0)
        self.beta = checks.number(beta, "beta", above=0.0)
        self.threshold = checks.number(threshold, "threshold")
        self.epsilon = None if epsilon is None else checks.number(epsilon, "epsilon")

    def family(self) -> Family | None:
        if self.epsilon is not None:  # then it also chooses pairs
            return None
        return Family(MultiSimilarityLoss, self.distance, *self.logits(), self.combine)

    def logits(self) -> tuple[Linear, Linear]:
        return Linear(self.alpha, self.threshold), Linear(-self.beta, self.threshold)

    def combine(self, positive: Tensor, negative: Tensor) -> Tensor:
        return softplus(positive) / self.alpha + softplus(negative) / self.beta

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        if self.epsilon is None:
            return super().per_anchor(distance, positive, negative)
        positive, negative = _hard(ops.stop_gradient(distance), positive, negative, self.epsilon)
        loss = super().per_anchor(distance, positive, negative)
        kept = self.valid_anchors(positive, negative)
        return ops.where(kept, loss, ops.zeros_like(loss))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "beta": self.beta,
            "threshold": self.threshold,
            "epsilon": self.epsilon,
        }


def _hard(
    distance: Tensor, positive: Tensor, negative: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The pairs that are within epsilon of the hardest pair of the other kind."""
    infinite = ops.full_like(distance, float("inf"))
    nearest = ops.min(ops.where(negative, distance, infinite), axis=1, keepdims=True)
    furthest = ops.max(ops.where(positive, distance, -infinite), axis=1, keepdims=True)
    return (
        ops.logical_and(positive, distance > nearest - epsilon),
        ops.logical_and(negative, distance < furthest + epsilon),
    )
