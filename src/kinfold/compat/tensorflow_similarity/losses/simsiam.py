"""`tensorflow_similarity.losses.SimSiamLoss`."""

import math
from typing import Any

import keras
from keras import ops

from kinfold.compat.tensorflow_similarity.losses.views import base_config, options, two_views
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import divide, rows_or_nan, square_root, unit_rows

_PROJECTIONS = ("negative_cosine_sim", "cosine_distance", "angular_distance")


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class SimSiamLoss(keras.losses.Loss):
    """The loss of SimSiam: how far a predictor's output is from the other view's projection.

    With the cosine s between the two outputs of an example:

        projection(s) / 2 + margin

    Gradients flow to both arguments, as there; SimSiam itself stops that of the first:
    `loss(ops.stop_gradient(projector), predictor)`.

    Args:
        projection_type: "negative_cosine_sim" is -s, "cosine_distance" is 1 - s, and
            "angular_distance" is arccos(s) / pi.
        margin: is added to each loss.
        reduction: a reduction of Keras; the means are over all examples.
        name: optional name of the loss.
        dtype: dtype of the views and the result; sums are in float32 at least.

    Raises:
        ValueError: an unknown projection or reduction; when called, a wrong rank, or shapes that
            differ.

    Reference:
        TensorFlow Similarity, losses.SimSiamLoss; Chen and He, Exploring Simple Siamese
        Representation Learning, 2020, https://arxiv.org/abs/2011.10566

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.losses import SimSiamLoss
    >>> projector, predictor = np.array([[1.0, 0.0]]), np.array([[3.0, 4.0]])
    >>> print(f"{float(SimSiamLoss()(projector, predictor)):.3f}")
    -0.299
    """

    def __init__(
        self,
        projection_type: str = "negative_cosine_sim",
        margin: float = 0.001,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(**options(reduction, name, dtype))
        if projection_type not in _PROJECTIONS:
            raise ValueError(
                f"`projection_type` must be one of {list(_PROJECTIONS)}. "
                f"Received: projection_type={projection_type!r}."
            )
        self.projection_type = projection_type
        self.margin = checks.number(margin, "margin")

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """Return the loss of each example [batch], neither weighted nor reduced."""
        views = two_views(y_true, y_pred, self.dtype)
        a, b = (unit_rows(z) for z in views)
        if self.projection_type == "angular_distance":
            projection = _angle(a, b) / math.pi
        else:
            projection = -ops.sum(a * b, axis=1)
            if self.projection_type == "cosine_distance":
                projection = 1.0 + projection
        rows = 0.5 * projection + self.margin
        return rows_or_nan(rows_or_nan(rows, views[0]), views[1])

    def get_config(self) -> dict[str, Any]:
        return {
            **base_config(self),
            "projection_type": self.projection_type,
            "margin": self.margin,
        }


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """Angle between unit rows; unlike arccos, exact and with a finite gradient where they meet."""
    apart = square_root(ops.sum((a - b) * (a - b), axis=1))
    along = square_root(ops.sum((a + b) * (a + b), axis=1))
    angle = 2.0 * ops.arctan(divide(apart, along))
    return ops.where(along > 0, angle, ops.full_like(angle, math.pi))
