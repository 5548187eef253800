"""Margin loss."""

from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.losses.base import PairLoss


@keras.saving.register_keras_serializable("kinfold")
class MarginLoss(PairLoss):
    """Margin loss: positives nearer than a boundary, negatives beyond it, over all triplets.

    With the distance d, summed over the triplets of an anchor with a positive p and a negative n:

        relu(d_p - beta + margin) + relu(beta - d_n + margin)

    A mean divides by the number of terms above 0; without reduction the loss of an anchor is its
    sum.

    Args:
        margin: how far from the boundary a pair must be.
        beta: the boundary, in units of the distance.

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: a parameter is not a number.
        ValueError: an unknown distance or reduction, or a similarity as the distance.

    Reference:
        Wu et al., Sampling Matters in Deep Embedding Learning, ICCV 2017,
        https://arxiv.org/abs/1706.07567

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import MarginLoss
    >>> x = np.array([[0, 0], [0, 2], [0, 1]], "float32")
    >>> print(f"{float(MarginLoss()(np.array([0, 0, 1]), x)):.4f}")
    0.7000
    """

    def __init__(
        self,
        margin: float = 0.2,
        beta: float = 1.2,
        distance: Any = "euclidean",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "margin_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)
        self.refuse_similarity()
        self.margin = checks.number(margin, "margin")
        self.beta = checks.number(beta, "beta")

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Any:
        near, near_count, positives = _hinges(distance - self.beta + self.margin, positive)
        far, far_count, negatives = _hinges(self.beta - distance + self.margin, negative)
        return negatives * near + positives * far, negatives * near_count + positives * far_count

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin, "beta": self.beta}


def _hinges(gap: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of relu(gap) over the mask, how many of them are above 0, and how many there are."""
    hinge = ops.where(mask, ops.relu(gap), ops.zeros_like(gap))
    parts = (hinge, ops.cast(hinge > 0, gap.dtype), ops.cast(mask, gap.dtype))
    total, above, count = (ops.sum(part, axis=1) for part in parts)
    return total, above, count
