"""`tensorflow_similarity.losses.MultiNegativesRankLoss`."""

from typing import Any

import keras
from keras import ops

from kinfold import distances, distributed, streaming
from kinfold.compat.tensorflow_similarity.distances import get
from kinfold.compat.tensorflow_similarity.losses.views import base_config, options, two_views
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import divide, or_nan
from kinfold.losses.reduction import anchor_weights, reduced


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class MultiNegativesRankLoss(keras.losses.Loss):
    """Multiple negatives ranking: every query is to find its key among the batch's keys.

    With s_ij = scale * query_i . key_j, the loss has there the shape [batch, batch]:

        loss_ij = log(1 + sum_k exp(s_ik)) - s_jj

    Its mean over all i and j is the mean over the queries of log(1 + sum_k exp(s_ik)) - s_ii, and
    is computed so: memory is linear in the batch unless the reduction is "none". A query's weight
    multiplies its row. As there, "sum" is over batch * batch values.

    Args:
        name: optional name of the loss.
        distance: "inner_product", the only one that it is defined for.
        scale: multiplies the inner products.
        reduction: a reduction of Keras.
        dtype: dtype of the embeddings and the result; sums are in float32 at least.

    Raises:
        ValueError: another distance, or an unknown reduction.

    Reference:
        TensorFlow Similarity, losses.MultiNegativesRankLoss; Henderson et al., Efficient Natural
        Language Response Suggestion for Smart Reply, 2017, https://arxiv.org/abs/1705.00652

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.losses import MultiNegativesRankLoss
    >>> za, zb = np.eye(3, dtype="float32"), np.eye(3, dtype="float32")
    >>> print(f"{float(MultiNegativesRankLoss(scale=2.0)(za, zb)):.4f}")
    0.3408
    """

    def __init__(
        self,
        name: str | None = "MultipleNegativesRankingLoss",
        distance: Any = "inner_product",
        scale: float = 20.0,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ) -> None:
        super().__init__(**options(reduction, name, dtype))
        self.distance = get(distance)
        if self.distance.name != "inner_product":
            raise ValueError(
                'MultiNegativesRankLoss is defined for distance="inner_product" alone. '
                f"Received: distance={self.distance.name!r}."
            )
        self.scale = checks.number(scale, "scale")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """Compute the loss.

        Args:
            y_true: the queries, [batch, d].
            y_pred: the key of each query, [batch, d].
            sample_weight: optional weight of each query, a scalar, [batch] or [batch, 1].

        Returns:
            A scalar, or [batch, batch] where the reduction is "none" or None.

        Raises:
            ValueError: a wrong rank, or shapes that differ.
        """
        with keras.name_scope(self.name):
            queries, keys = self._views(y_true, y_pred)
            weights = anchor_weights(sample_weight, like=queries[:, 0])
            if self.reduction in (None, "none"):
                rows = self._rows(queries, keys) * ops.expand_dims(weights, 1)
                return ops.cast(or_nan(rows, queries, keys), self.dtype)
            total, every = streaming.weighted_sum(self._block, queries, keys, weights)
            own = self._own(queries, keys)
            count = ops.sum(ops.ones_like(weights))
            # The sum over i and j divided by the batch, so that large batches lose no digits.
            total = total - ops.sum(weights) * divide(ops.sum(own), count)
            if self.reduction == "sum":
                total = total * count
            loss = or_nan(reduced(total, every, weights, self.reduction), queries, keys)
            return ops.cast(loss, self.dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """Return loss_ij [batch, batch], neither weighted nor reduced."""
        views = self._views(y_true, y_pred)
        return ops.cast(or_nan(self._rows(*views), *views), self.dtype)

    def _rows(self, queries: Tensor, keys: Tensor) -> Tensor:
        totals, _ = streaming.per_anchor(self._block, queries, keys)
        return ops.expand_dims(totals, 1) - ops.expand_dims(self._own(queries, keys), 0)

    def _views(self, y_true: Any, y_pred: Any) -> Any:
        views = two_views(y_true, y_pred, self.dtype)
        distributed.refuse(self, views[0])
        return views

    def _own(self, queries: Tensor, keys: Tensor) -> Tensor:
        return self.scale * ops.sum(queries * keys, axis=1)

    def _block(self, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """log(1 + sum_k exp(s_ik)) of some queries."""
        logit = (self.scale * x) @ ops.transpose(r)
        largest = ops.stop_gradient(ops.relu(ops.max(logit, axis=1, keepdims=True)))
        total = ops.sum(ops.exp(logit - largest), axis=1, keepdims=True) + ops.exp(-largest)
        rows = ops.squeeze(largest + ops.log(total), axis=1)
        return rows, ops.ones_like(rows, dtype="bool")

    def get_config(self) -> dict[str, Any]:
        distance = distances.serialize(self.distance)
        return {**base_config(self), "distance": distance, "scale": self.scale}
