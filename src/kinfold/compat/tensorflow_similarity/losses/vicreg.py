"""`tensorflow_similarity.losses.VicReg`."""

from typing import Any

import keras
from keras import ops

from kinfold import distributed
from kinfold.compat.tensorflow_similarity.losses.views import (
    base_config,
    centred,
    count,
    options,
    two_views,
)
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import or_nan, square_root


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class VicReg(keras.losses.Loss):
    """VICReg: views agree, features vary over the batch, and no two features vary together.

    Per example, the last two terms being those of the batch:

        lambda_ * mean_d (za - zb)^2 + mu * (v(za) + v(zb)) / 2 + nu * (c(za) + c(zb))

    v(z) = mean_d relu(1 - sqrt(Var(z_d) + std_const)), and c(z) is the sum of the squared
    covariances of different features, divided by d.

    Args:
        std_const: is added to the variances, 0 or greater.
        lambda_: weight of the agreement.
        mu: weight of the variances.
        nu: weight of the covariances.
        reduction: a reduction of Keras. The default is that of TensorFlow Similarity, the loss of
            each example; to train with `fit`, pass "sum_over_batch_size".
        name: optional name of the loss.
        dtype: dtype of the views and the result; sums are in float32 at least.

    Raises:
        ValueError: an unknown reduction, or a negative `std_const`; when called, a wrong rank, or
            shapes that differ.

    Reference:
        TensorFlow Similarity, losses.VicReg; Bardes et al., VICReg, 2021,
        https://arxiv.org/abs/2105.04906

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.losses import VicReg
    >>> za = np.array([[2, 0], [0, 2], [0, 0], [2, 2]], "float32")
    >>> print(f"{float(VicReg(reduction='mean')(za, za)):.2f}")
    0.00
    """

    def __init__(
        self,
        std_const: float = 1e-4,
        lambda_: float = 25.0,
        mu: float = 25.0,
        nu: float = 1.0,
        reduction: str | None = "none",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(**options(reduction, name, dtype))
        self.std_const = checks.number(std_const, "std_const")
        if self.std_const < 0:
            raise ValueError(
                f"`std_const` must be 0 or greater. Received: std_const={std_const!r}."
            )
        self.lambda_ = checks.number(lambda_, "lambda_")
        self.mu = checks.number(mu, "mu")
        self.nu = checks.number(nu, "nu")

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """Return the loss of each example [batch], neither weighted nor reduced."""
        a, b = two_views(y_true, y_pred, self.dtype)
        distributed.refuse(self, a)
        apart = ops.sum(ops.square(a - b), axis=1) / a.shape[1]
        a, b = (centred(z) for z in (a, b))
        variance = self._variance(a) + self._variance(b)
        covariance = _covariance(a) + _covariance(b)
        rows = self.lambda_ * apart + self.mu * variance / 2.0 + self.nu * covariance
        return or_nan(rows, a, b)

    def _variance(self, z: Tensor) -> Tensor:
        deviation = square_root(ops.sum(z * z, axis=0) / count(z) + self.std_const)
        return ops.sum(ops.relu(1.0 - deviation)) / z.shape[1]

    def get_config(self) -> dict[str, Any]:
        return {
            **base_config(self),
            "std_const": self.std_const,
            "lambda_": self.lambda_,
            "mu": self.mu,
            "nu": self.nu,
        }


def _covariance(z: Tensor) -> Tensor:
    """Squared covariances of different features, summed and divided by d; centred z [n, d]."""
    covariance = ops.transpose(z) @ z / count(z, less=1.0)
    eye = ops.eye(z.shape[1], dtype=keras.backend.standardize_dtype(z.dtype))
    return ops.sum(ops.square(covariance * (1.0 - eye))) / z.shape[1]
