"""Tuplet margin loss."""

import math
from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import count_in_row, log_sum_exp, softplus, square_root
from kinfold.losses.base import PairLoss


@keras.saving.register_keras_serializable("kinfold")
class TupletMarginLoss(PairLoss):
    """Tuplet margin loss: each positive against all negatives of its anchor, with a slack angle.

    With theta the angle between an anchor and a reference, for an anchor with positives P and
    negatives N, for each positive p:

        log(1 + sum_{n in N} exp(scale (cos(theta_n) - cos(theta_p - margin))))

    The margin makes positives easier, so that the hardest of a class decide less. A mean is over
    positive pairs, and without reduction the loss of an anchor is the sum over its pairs.

    Args:
        margin: angle in degrees, at least 0 and below 90.
        scale: of the cosines, greater than 0.

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: the margin or the scale is not a number.
        ValueError: a margin out of range, scale <= 0, or an unknown reduction.

    Reference:
        Yu and Tao, Deep Metric Learning with Tuplet Margin Loss, ICCV 2019

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import TupletMarginLoss
    >>> x = np.array([[1, 0], [0.8, 0.6], [0, 1]], "float32")
    >>> print(f"{float(TupletMarginLoss(scale=4.0)(np.array([0, 0, 1]), x)):.4f}")
    0.1695
    """

    def __init__(
        self,
        margin: float = 5.73,
        scale: float = 64.0,
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "tuplet_margin_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__("cosine", remove_diagonal, *shared)
        self.margin = checks.number(margin, "margin", least=0.0)
        if self.margin >= 90:
            raise ValueError(f"`margin` must be below 90 degrees. Received: margin={margin}.")
        self.scale = checks.number(scale, "scale", above=0.0)

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Any:
        cosine, zero = 1.0 - distance, ops.zeros_like(distance)
        negatives = ops.expand_dims(log_sum_exp(self.scale * cosine, negative), 1)
        # sin(theta) of the distance, which tells small angles that the cosine does not.
        sine = square_root(distance * (2.0 - distance))
        angle = math.radians(self.margin)
        turned = cosine * math.cos(angle) + sine * math.sin(angle)
        apart = softplus(ops.where(positive, negatives - self.scale * turned, zero))
        total = ops.sum(ops.where(positive, apart, zero), axis=1)
        return total, ops.cast(count_in_row(positive), distance.dtype)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "margin": self.margin, "scale": self.scale}
        del config["distance"]
        return config
