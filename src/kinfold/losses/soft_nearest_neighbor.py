"""Soft nearest neighbour loss."""

from typing import Any

import keras

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import softplus
from kinfold.losses.log_sum_exp import LogSumExpLoss
from kinfold.streaming import Family, Linear


@keras.saving.register_keras_serializable("kinfold")
class SoftNearestNeighborLoss(LogSumExpLoss):
    """Soft nearest neighbour loss: how likely a neighbour drawn by distance is no positive.

    With the distance d (a similarity counts as -d), for an anchor with positives P and negatives N:

        -log(sum_P exp(-d / temperature) / sum_{P and N} exp(-d / temperature))

    With the squared Euclidean distance this is NCA, neighbourhood components analysis.

    Args:
        temperature: scale of the distances, greater than 0.

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: the temperature is not a number.
        ValueError: temperature <= 0, an unknown distance or reduction.

    Reference:
        Frosst et al., Analyzing and Improving Representations with the Soft Nearest Neighbor Loss,
        ICML 2019, https://arxiv.org/abs/1902.01889; Goldberger et al., Neighbourhood Components
        Analysis, NIPS 2004

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import SoftNearestNeighborLoss
    >>> x = np.array([[1, 0], [0.8, 0.6], [0, 1]], "float32")
    >>> print(f"{float(SoftNearestNeighborLoss(temperature=0.5)(np.array([0, 0, 1]), x)):.4f}")
    0.3485
    """

    def __init__(
        self,
        temperature: float = 1.0,
        distance: Any = "cosine",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "soft_nearest_neighbor_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)
        self.temperature = checks.number(temperature, "temperature", above=0.0)

    def family(self) -> Family:
        return Family(SoftNearestNeighborLoss, self.distance, *self.logits(), self.combine)

    def logits(self) -> tuple[Linear, Linear]:
        logit = Linear((1.0 if self.distance.similarity else -1.0) / self.temperature)
        return logit, logit

    negative_logit = LogSumExpLoss.positive_logit  # computed once for both

    def combine(self, positive: Tensor, negative: Tensor) -> Tensor:
        return softplus(negative - positive)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}
