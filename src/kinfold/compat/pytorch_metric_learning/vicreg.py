"""VICReg, as pytorch-metric-learning has it."""

from typing import Any

from keras import ops

from kinfold.compat.pytorch_metric_learning.own import BaseMetricLossFunction
from kinfold.core import checks
from kinfold.core.checks import Tensor


class VICRegLoss(BaseMetricLossFunction):
    """VICReg of two views of the same examples: `loss(embeddings, ref_emb=other)`.

    Args:
        invariance_lambda: weight of the mean squared gap between the views.
        variance_mu: weight of how far the standard deviation of a dimension is below 1.
        covariance_v: weight of the squared covariances of different dimensions.
        eps: added to each variance.
    """

    def __init__(
        self,
        invariance_lambda: float = 25,
        variance_mu: float = 25,
        covariance_v: float = 1,
        eps: float = 1e-4,
        **shared: Any,
    ) -> None:
        for name in ("distance", "embedding_regularizer"):
            if shared.get(name) is not None:
                raise ValueError(f"VICRegLoss takes no {name}.")
        super().__init__(**shared)
        self.invariance_lambda, self.variance_mu = invariance_lambda, variance_mu
        self.covariance_v, self.eps = covariance_v, eps

    def compute_loss(
        self, embeddings: Any, labels: Any, indices_tuple: Any, ref_emb: Any, ref_labels: Any
    ) -> dict[str, dict[str, Any]]:
        if labels is not None or ref_labels is not None or indices_tuple is not None:
            raise ValueError("VICRegLoss takes no labels, ref_labels and indices_tuple.")
        views = embeddings, ref_emb
        checks.same_count(embeddings, ref_emb, ("embeddings", "ref_emb"))
        gap = ops.sum(ops.square(embeddings - ref_emb), axis=1) / embeddings.shape[1]
        found = {"invariance_loss": gap * self.invariance_lambda}
        for i, view in enumerate(views, 1):
            variance = ops.sum(ops.square(_centred(view)), axis=0) / (view.shape[0] - 1)
            short = ops.relu(1.0 - ops.sqrt(variance + self.eps)) / 2
            found[f"variance_loss{i}"] = short * self.variance_mu
        parts = {
            name: {"losses": losses, "indices": _range(losses), "reduction_type": "element"}
            for name, losses in found.items()
        }
        covariance = sum(_off_diagonal(view) for view in views) * self.covariance_v
        return {
            **parts,
            "covariance_loss": {
                "losses": covariance,
                "indices": None,
                "reduction_type": "already_reduced",
            },
        }

    def _sub_loss_names(self) -> list[str]:
        return ["invariance_loss", "variance_loss1", "variance_loss2", "covariance_loss"]


def _off_diagonal(x: Tensor) -> Tensor:
    centred = _centred(x)
    covariance = ops.transpose(centred) @ centred / (x.shape[0] - 1)
    apart = ops.where(ops.eye(x.shape[1], dtype="bool"), ops.zeros_like(covariance), covariance)
    return ops.sum(ops.square(apart)) / x.shape[1]


def _centred(x: Tensor) -> Tensor:
    return x - ops.sum(x, axis=0) / x.shape[0]  # the mean of Keras is in float32


def _range(losses: Tensor) -> Tensor:
    return ops.arange(losses.shape[0], dtype="int32")
