"""`tensorflow_similarity.losses.Barlow`."""

from typing import Any

import keras
from keras import ops

from kinfold import distributed
from kinfold.compat.tensorflow_similarity.losses.views import (
    base_config,
    centred,
    count,
    one_weight,
    options,
    two_views,
)
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import divide, or_nan, square_root


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class Barlow(keras.losses.Loss):
    """Barlow Twins: the two views' features should correlate, each with its own alone.

    With the correlation matrix c [d, d] of the features of za with those of zb over the batch:

        sum_i (1 - c_ii)^2 + lambda_ * sum_{i != j} c_ij^2 + margin

    One value per batch, whatever the reduction. A feature without variance correlates with nothing.

    Args:
        lambda_: weight of the correlations off the diagonal.
        margin: is added to the loss.
        reduction: a reduction of Keras; all are the same here.
        name: optional name of the loss.
        dtype: dtype of the views and the result; sums are in float32 at least.

    Raises:
        ValueError: an unknown reduction; when called, a wrong rank, shapes that differ, or a
            weight an example.

    Reference:
        TensorFlow Similarity, losses.Barlow; Zbontar et al., Barlow Twins: Self-Supervised Learning
        via Redundancy Reduction, 2021, https://arxiv.org/abs/2103.03230

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.losses import Barlow
    >>> za = np.array([[1, 0], [0, 1], [0, 0], [1, 1]], "float32")
    >>> print(f"{float(Barlow()(za, za)):.2f} {float(Barlow()(za, 1 - za)):.2f}")
    0.00 8.00
    """

    def __init__(
        self,
        lambda_: float = 5e-3,
        margin: float = 1e-12,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(**options(reduction, name, dtype))
        self.lambda_ = checks.number(lambda_, "lambda_")
        self.margin = checks.number(margin, "margin")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        return super().__call__(y_true, y_pred, one_weight(sample_weight, self))

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """Return the loss of the batch, a scalar."""
        views = two_views(y_true, y_pred, self.dtype)
        distributed.refuse(self, views[0])
        a, b = (_standardised(z) for z in views)
        correlation = ops.transpose(a) @ b / count(b)
        diagonal = ops.diagonal(correlation)
        eye = ops.eye(a.shape[1], dtype=keras.backend.standardize_dtype(a.dtype))
        off = ops.sum(ops.square(correlation * (1.0 - eye)))
        loss = ops.sum(ops.square(1.0 - diagonal)) + self.lambda_ * off + self.margin
        return or_nan(loss, *views)

    def get_config(self) -> dict[str, Any]:
        return {**base_config(self), "lambda_": self.lambda_, "margin": self.margin}


def _standardised(z: Tensor) -> Tensor:
    """Columns of mean 0 and variance 1; a column without variance is 0."""
    z = centred(z)
    # Scaled first, so that the square neither overflows nor vanishes.
    largest = ops.stop_gradient(ops.max(ops.abs(z), axis=0, keepdims=True, initial=0.0))
    z = divide(z, largest)
    variance = ops.sum(z * z, axis=0, keepdims=True) / count(z)
    return divide(z, square_root(variance))
