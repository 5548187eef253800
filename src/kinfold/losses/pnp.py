"""PNP loss, which penalises the negatives before each positive."""

from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import count_in_row, divide
from kinfold.losses import ranks
from kinfold.losses.base import PairLoss

VARIANTS = ("Ds", "Dq", "Iu", "Ib", "O")


@keras.saving.register_keras_serializable("kinfold")
class PNPLoss(PairLoss):
    """PNP loss: penalises the negatives before each positive of an anchor's ranking.

    With the similarity s, R(p) = sum_{n in N} sigmoid((s_n - s_p) / temperature), the soft number
    of negatives before a positive p, and a penalty f, for an anchor with positives P:

        mean_{p in P} f(R(p))

    The penalties: "O", R; "Iu", (1 + R) log(1 + R); "Ib", (b R - log(1 + b R)) / b^2; "Ds",
    log(1 + R); "Dq", 1 - 1 / (1 + R)^alpha. Those with D have a derivative that decreases: they
    leave alone a positive with many negatives before it, which may be mislabelled. Time grows with
    the largest class of a batch, memory does not.

    Args:
        variant: the penalty.
        b: of "Ib", greater than 0.
        alpha: of "Dq", greater than 0.
        temperature: of the sigmoid, in units of the distance, greater than 0.

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: a parameter is not a number.
        ValueError: an unknown variant, a parameter <= 0, an unknown distance or reduction.

    Reference:
        Li et al., Rethinking the Optimization of Average Precision: Only Penalizing Negative
        Instances before Positive Ones is Enough, AAAI 2022, https://arxiv.org/abs/2102.04640

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import PNPLoss
    >>> x = np.array([[1, 0], [0, 1], [0.8, 0.6]], "float32")
    >>> print(f"{float(PNPLoss()(np.array([0, 0, 1]), x)):.4f}")
    1.0000
    """

    def __init__(
        self,
        variant: str = "O",
        b: float = 2.0,
        alpha: float = 1.0,
        temperature: float = 0.01,
        distance: Any = "cosine",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "pnp_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)
        self.variant = checks.choice(variant, "variant", VARIANTS)
        self.b = checks.number(b, "b", above=0.0)
        self.alpha = checks.number(alpha, "alpha", above=0.0)
        self.temperature = checks.number(temperature, "temperature", above=0.0)

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        total = ranks.over_positives(
            self._penalty, self.closeness(distance), positive, negative, self.temperature
        )
        count = ops.cast(count_in_row(positive), keras.backend.standardize_dtype(total.dtype))
        return divide(total, count)

    def _penalty(self, positives: Tensor, rank: Tensor) -> Tensor:
        if self.variant == "O":
            return rank
        if self.variant == "Ds":
            return ops.log1p(rank)
        if self.variant == "Dq":
            return -ops.expm1(-self.alpha * ops.log1p(rank))
        if self.variant == "Iu":
            return (1.0 + rank) * ops.log1p(rank)
        return (self.b * rank - ops.log1p(self.b * rank)) / self.b**2

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "variant": self.variant,
            "b": self.b,
            "alpha": self.alpha,
            "temperature": self.temperature,
        }
