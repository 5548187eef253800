"""Threshold-consistent margin loss."""

from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import count_in_row
from kinfold.losses.means import TwoMeansLoss


@keras.saving.register_keras_serializable("kinfold")
class ThresholdConsistentMarginLoss(TwoMeansLoss):
    """Threshold-consistent margin loss: pulls the hard pairs of all classes to one threshold.

    With the distance d, over the positive pairs P and the negative pairs N of the batch:

        positive_weight mean_{P, d >= positive_margin}(d - positive_margin)
            + negative_weight mean_{N, d <= negative_margin}(negative_margin - d)

    It is a regularizer, to add to another loss: it brings the distances at which classes part
    closer together, so that one threshold serves them all. Both means are over pairs of the whole
    batch; without reduction, the losses of the anchors add up to that of the batch.

    Args:
        positive_margin: distance beyond which a positive pair is hard.
        negative_margin: distance within which a negative pair is hard.
        positive_weight: of the mean over positive pairs.
        negative_weight: of the mean over negative pairs.

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: a parameter is not a number.
        ValueError: an unknown distance or reduction, or a similarity as the distance.

    Reference:
        Zhang et al., Threshold-Consistent Margin Loss for Open-World Deep Metric Learning, ICLR
        2024, https://arxiv.org/abs/2307.04047

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import ThresholdConsistentMarginLoss
    >>> x = np.array([[1, 0], [0, 1], [0.8, 0.6]], "float32")
    >>> print(f"{float(ThresholdConsistentMarginLoss()(np.array([0, 0, 1]), x)):.4f}")
    1.1000
    """

    def __init__(
        self,
        positive_margin: float = 0.1,
        negative_margin: float = 0.5,
        positive_weight: float = 1.0,
        negative_weight: float = 1.0,
        distance: Any = "cosine",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "threshold_consistent_margin_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)
        self.refuse_similarity()
        self.positive_margin = checks.number(positive_margin, "positive_margin")
        self.negative_margin = checks.number(negative_margin, "negative_margin")
        self.positive_weight = checks.number(positive_weight, "positive_weight")
        self.negative_weight = checks.number(negative_weight, "negative_weight")

    def sides(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Any:
        near = _beyond(distance - self.positive_margin, positive)
        far = _beyond(self.negative_margin - distance, negative)
        return self.positive_weight * near[0], near[1], self.negative_weight * far[0], far[1]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "positive_margin": self.positive_margin,
            "negative_margin": self.negative_margin,
            "positive_weight": self.positive_weight,
            "negative_weight": self.negative_weight,
        }


def _beyond(gap: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the gaps that are at least 0, and how many they are; [t] each."""
    mask = ops.logical_and(mask, gap >= 0)
    total = ops.sum(ops.where(mask, gap, ops.zeros_like(gap)), axis=1)
    return total, ops.cast(count_in_row(mask), gap.dtype)
