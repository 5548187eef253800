"""Smooth-AP loss."""

from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import count_in_row, divide
from kinfold.losses import ranks
from kinfold.losses.base import PairLoss


@keras.saving.register_keras_serializable("kinfold")
class SmoothAPLoss(PairLoss):
    """Smooth-AP loss: 1 less the average precision of each anchor's ranking, by sigmoids.

    With the similarity s and R_A(p) = 1 + sum_{j in A, j != p} sigmoid((s_j - s_p) / temperature),
    the soft rank of a positive p among A, for an anchor with positives P and negatives N:

        1 - mean_{p in P}(R_P(p) / R_{P and N}(p))

    Time grows with the largest class of a batch, memory does not.

    Args:
        temperature: of the sigmoid, in units of the distance, greater than 0. The smaller, the
            closer to average precision, and the fewer pairs have a gradient.

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: the temperature is not a number.
        ValueError: temperature <= 0, an unknown distance or reduction.

    Reference:
        Brown et al., Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval, ECCV 2020,
        https://arxiv.org/abs/2007.12163

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import SmoothAPLoss
    >>> x = np.array([[1, 0], [0, 1], [0.8, 0.6]], "float32")
    >>> print(f"{float(SmoothAPLoss()(np.array([0, 0, 1]), x)):.4f}")
    0.5000
    """

    def __init__(
        self,
        temperature: float = 0.01,
        distance: Any = "cosine",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "smooth_ap_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)
        self.temperature = checks.number(temperature, "temperature", above=0.0)

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        closeness = self.closeness(distance)
        precision = ranks.over_positives(
            _precision, closeness, positive, negative, self.temperature
        )
        count = ops.cast(count_in_row(positive), keras.backend.standardize_dtype(precision.dtype))
        return 1.0 - divide(precision, count)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}


def _precision(positives: Tensor, negatives: Tensor) -> Tensor:
    return (1.0 + positives) / (1.0 + positives + negatives)
