"""`tfa.losses.TripletSemiHardLoss`, `TripletHardLoss` and their functions."""

from typing import Any

import keras
from keras import ops

from kinfold import losses
from kinfold.compat import keras2
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row, softplus
from kinfold.losses.cache import cached_loss

METRICS: dict[str, dict[str, Any]] = {
    "L2": {"distance": "euclidean"},
    "squared-L2": {"distance": "squared_euclidean"},
    "angular": {"distance": "cosine", "normalize": True},
}


def _metric(distance_metric: Any) -> dict[str, Any]:
    if not isinstance(distance_metric, str) or distance_metric not in METRICS:
        raise ValueError(
            f"`distance_metric` must be one of {list(METRICS)}; for a distance of your own see "
            f"kinfold.losses.TripletLoss. Received: distance_metric={distance_metric!r}."
        )
    return METRICS[distance_metric]


class _ByMetric:
    """A config with TensorFlow Addons' name of the distance in place of ours."""

    distance_metric: str

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        for ours in ("distance", "normalize", "positives", "negatives", "swap"):
            config.pop(ours, None)
        return {**config, "distance_metric": self.distance_metric}


@keras.saving.register_keras_serializable("kinfold.tensorflow_addons")
class TripletSemiHardLoss(_ByMetric, losses.TripletLoss):
    """The semi-hard triplet loss of TensorFlow Addons, over all positive pairs.

    With the distance d, the mean over positive pairs of relu(d_p - d_n + margin), where the
    negative is the nearest one that is further away than the positive, or the furthest of all.

    Args:
        margin: margin of the triplets.
        distance_metric: "L2", "squared-L2" or "angular" (1 less the cosine similarity).
        name: optional name of the loss.
        **kwargs: `reduction` and `dtype`, as in Keras.

    Reference:
        TensorFlow Addons, tfa.losses.TripletSemiHardLoss; https://arxiv.org/abs/1503.03832

    Example:

    >>> import numpy as np
    >>> import kinfold.compat.tensorflow_addons as tfa
    >>> x = np.array([[0, 0], [3, 4], [0, 1]], "float32")
    >>> print(f"{float(tfa.losses.TripletSemiHardLoss()(np.array([0, 0, 1]), x)):.4f}")
    3.3787
    """

    def __init__(
        self,
        margin: float = 1.0,
        distance_metric: str = "L2",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.distance_metric = distance_metric
        keras2.rename_reduction(kwargs)
        super().__init__(
            margin, "all", "semi-hard", name=name, **_metric(distance_metric), **kwargs
        )


@keras.saving.register_keras_serializable("kinfold.tensorflow_addons")
class TripletHardLoss(_ByMetric, losses.TripletLoss):
    """The hard triplet loss of TensorFlow Addons, over the whole batch.

    With the distance d, the mean over anchors of relu(d_p - d_n + margin), or of
    log(1 + exp(d_p - d_n)), for the furthest positive and the nearest negative. An anchor without
    positives counts as there, with d_p = 0.

    Args:
        margin: margin of the triplets.
        soft: whether to use the soft form, without the margin.
        distance_metric: "L2", "squared-L2" or "angular" (1 less the cosine similarity).
        name: optional name of the loss.
        **kwargs: `reduction` and `dtype`, as in Keras.

    Reference:
        TensorFlow Addons, tfa.losses.TripletHardLoss; https://arxiv.org/abs/1703.07737

    Example:

    >>> import numpy as np
    >>> import kinfold.compat.tensorflow_addons as tfa
    >>> x = np.array([[0, 0], [3, 4], [0, 1]], "float32")
    >>> print(f"{float(tfa.losses.TripletHardLoss()(np.array([0, 0, 1]), x)):.4f}")
    2.2525
    """

    def __init__(
        self,
        margin: float = 1.0,
        soft: bool = False,
        distance_metric: str = "L2",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.distance_metric, self.soft = distance_metric, bool(soft)
        keras2.rename_reduction(kwargs)
        super().__init__(margin, "hard", "hard", name=name, **_metric(distance_metric), **kwargs)

    def valid_anchors(self, positive: Tensor, negative: Tensor) -> Tensor:
        return any_in_row(negative)

    def counted(self, counted: Tensor) -> Tensor:
        return ops.ones_like(counted)

    def per_anchor(
        self, distance: Tensor, positive: Tensor, negative: Tensor, *extra: Tensor
    ) -> Tensor:
        d = distance
        furthest = ops.max(ops.where(positive, d, ops.zeros_like(d)), axis=1)
        nearest = ops.min(ops.where(negative, d, ops.full_like(d, float("inf"))), axis=1)
        # Replaced where there is none, so that no infinity meets a gradient.
        nearest = ops.where(any_in_row(negative), nearest, ops.zeros_like(nearest))
        gap = furthest - nearest
        return softplus(gap) if self.soft else ops.relu(gap + self.margin)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "soft": self.soft}


def triplet_semihard_loss(
    y_true: Any, y_pred: Any, margin: float = 1.0, distance_metric: str = "L2"
) -> Tensor:
    """Compute the semi-hard triplet loss; see `TripletSemiHardLoss`.

    Args:
        y_true: integer class ids [batch].
        y_pred: embeddings [batch, d].
        margin: margin of the triplets.
        distance_metric: "L2", "squared-L2" or "angular".

    Returns:
        A scalar.
    """
    loss = cached_loss(
        TripletSemiHardLoss, float(margin), distance_metric, dtype=checks.compute_dtype(y_pred)
    )
    return loss(y_true, y_pred)


def triplet_hard_loss(
    y_true: Any,
    y_pred: Any,
    margin: float = 1.0,
    soft: bool = False,
    distance_metric: str = "L2",
) -> Tensor:
    """Compute the hard triplet loss; see `TripletHardLoss`.

    Args:
        y_true: integer class ids [batch].
        y_pred: embeddings [batch, d].
        margin: margin of the triplets.
        soft: whether to use the soft form, without the margin.
        distance_metric: "L2", "squared-L2" or "angular".

    Returns:
        A scalar.
    """
    dtype = checks.compute_dtype(y_pred)
    loss = cached_loss(TripletHardLoss, float(margin), bool(soft), distance_metric, dtype=dtype)
    return loss(y_true, y_pred)
