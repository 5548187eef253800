"""FastAP loss."""

from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import count_in_row, divide
from kinfold.losses.base import PairLoss


@keras.saving.register_keras_serializable("kinfold")
class FastAPLoss(PairLoss):
    """FastAP loss: 1 less the average precision of each anchor's ranking, by soft histograms.

    With histograms of the squared distances between unit embeddings over bins on [0, 4], h+ of the
    positives and h of all, and H+ and H their running sums:

        1 - sum_bins(h+ H+ / H) / |P|

    Args:
        bins: number of bins.
        distance: a distance with values in [0, 4].

    The other arguments are those of `PairLoss`.

    Raises:
        ValueError: bins that are no positive whole number, an unknown distance or reduction.

    Reference:
        Cakir et al., Deep Metric Learning to Rank, CVPR 2019

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import FastAPLoss
    >>> x = np.array([[1, 0], [0, 1], [0.8, 0.6]], "float32")
    >>> print(f"{float(FastAPLoss()(np.array([0, 0, 1]), x)):.4f}")
    0.5000
    """

    def __init__(
        self,
        bins: int = 10,
        distance: Any = "squared_euclidean",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "fast_ap_loss",
        dtype: Any = None,
        *,
        normalize: bool = True,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)
        self.refuse_similarity()
        self.bins = checks.count(bins, "bins")

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        zero = ops.zeros_like(distance)
        positives = every = ops.sum(zero, axis=1)
        precision = positives
        width = 4.0 / self.bins
        for edge in range(self.bins + 1):
            pulse = ops.relu(1.0 - ops.abs(distance - edge * width) / width)
            of_positives = ops.sum(ops.where(positive, pulse, zero), axis=1)
            positives = positives + of_positives
            every = every + of_positives + ops.sum(ops.where(negative, pulse, zero), axis=1)
            precision = precision + divide(of_positives * positives, every)
        count = ops.cast(count_in_row(positive), distance.dtype)
        return 1.0 - divide(precision, count)

    def numbers_a_pair(self, dimension: int) -> int:
        return 4 * super().numbers_a_pair(dimension)  # a backward pass keeps each bin's pulse

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bins": self.bins}
