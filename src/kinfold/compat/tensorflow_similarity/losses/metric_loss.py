"""`tensorflow_similarity.losses.MetricLoss`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kinfold.compat.tensorflow_similarity.losses.views import options
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.losses.reduction import anchor_weights, reduced


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class MetricLoss(keras.losses.Loss):
    """A loss of a function of queries and keys, which are one batch.

    Prefer `kinfold.losses.PairLoss` for a loss of your own: written as one row, it needs memory
    linear in the batch, and works against references.

    Args:
        fn: takes (query_labels, query_embeddings, key_labels, key_embeddings, **kwargs), and
            returns the loss of each query, [batch] or [batch, 1].
        reduction: a reduction of Keras.
        name: optional name.
        dtype: dtype of the embeddings and of the loss.
        **kwargs: further arguments of `fn`.

    Raises:
        TypeError: `fn` is no function; when called, labels that are not integers.
        ValueError: an unknown reduction; when called, shapes that do not fit.

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.compat.tensorflow_similarity.losses import MetricLoss
    >>> def spread(y, x, key_y, key_x, scale):
    ...     return scale * ops.sum(ops.square(x), axis=1)
    >>> loss = MetricLoss(spread, scale=2.0)
    >>> print(f"{float(loss(np.array([0, 1]), np.array([[1, 0], [0, 2]], 'float32'))):.1f}")
    5.0
    """

    def __init__(
        self,
        fn: Callable[..., Tensor],
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        if not callable(fn):
            raise TypeError(f"`fn` must be a function. Received: fn={fn!r}.")
        super().__init__(**options(reduction, name, dtype))
        self.fn, self._fn_kwargs = fn, kwargs

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        # Not of Keras, which makes floats of class ids, so that large ones would merge.
        rows = self.call(y_true, y_pred)
        flat = ops.reshape(rows, (-1,))
        weights = anchor_weights(sample_weight, like=flat)
        if self.reduction in (None, "none"):
            return rows * ops.reshape(weights, ops.shape(rows))
        total = ops.sum(flat * weights)
        return reduced(total, ops.ones_like(flat), weights, self.reduction)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """Return the loss of each query."""
        x = checks.embeddings(y_pred, "y_pred", self.dtype)
        labels = checks.labels(y_true, "y_true")
        checks.same_count(labels, x, ("y_true", "y_pred"))
        return self.fn(labels, x, labels, x, **self._fn_kwargs)

    def get_config(self) -> dict[str, Any]:
        fn = keras.saving.serialize_keras_object(self.fn)
        return {**super().get_config(), **self._fn_kwargs, "fn": fn}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MetricLoss:
        return cls(**{**config, "fn": keras.saving.deserialize_keras_object(config["fn"])})
