"""NT-Xent, the normalised temperature-scaled cross entropy, for any number of positives."""

from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import count_in_row, divide, log_sum_exp, softplus
from kinfold.losses.base import PairLoss
from kinfold.streaming import Family, Linear


@keras.saving.register_keras_serializable("kinfold")
class NTXentLoss(PairLoss):
    """NT-Xent loss: each positive against all negatives of its anchor.

    With the distance d (a similarity counts as -d), for an anchor with positives P and negatives N:

        mean_{p in P} log(1 + sum_{n in N} exp((d_p - d_n) / temperature))

    Args:
        temperature: scale of the distances, greater than 0.

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: the temperature is not a number.
        ValueError: temperature <= 0, an unknown distance or reduction.

    Reference:
        Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
        ICML 2020, https://arxiv.org/abs/2002.05709

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import NTXentLoss
    >>> x = np.array([[1, 0], [0.8, 0.6], [0, 1]], "float32")
    >>> print(f"{float(NTXentLoss(temperature=0.5)(np.array([0, 0, 1]), x)):.4f}")
    0.3485
    """

    def __init__(
        self,
        temperature: float = 0.07,
        distance: Any = "cosine",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "nt_xent_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)
        self.temperature = checks.number(temperature, "temperature", above=0.0)

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Any:
        total, count = self.per_pair(distance, positive, negative)
        return divide(total, count)

    def per_pair(
        self, distance: Tensor, positive: Tensor, negative: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sum over an anchor's positives, and their number."""
        logit = self.closeness(distance) / self.temperature
        negatives = ops.expand_dims(log_sum_exp(logit, negative), 1)
        zero = ops.zeros_like(logit)
        # Replaced before softplus, so that no large logit of another pair meets a gradient.
        apart = softplus(ops.where(positive, negatives - logit, zero))
        total = ops.sum(ops.where(positive, apart, zero), axis=1)
        return total, ops.cast(count_in_row(positive), logit.dtype)

    def family(self) -> Family:
        logit = Linear((1.0 if self.distance.similarity else -1.0) / self.temperature)
        return Family(NTXentLoss, self.distance, logit, logit, _the_mean, extra="each")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}


def _the_mean(positive: Tensor, negative: Tensor, mean: Tensor) -> Tensor:
    return mean
