"""`tensorflow_similarity.losses.SimCLRLoss`."""

from typing import Any

import keras
from keras import ops

from kinfold import distributed, streaming
from kinfold.compat.tensorflow_similarity.losses.views import base_config, options, two_views
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import or_nan, softplus, unit_rows
from kinfold.losses.reduction import anchor_weights, reduced


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class SimCLRLoss(keras.losses.Loss):
    """The loss of SimCLR: each view of an example is to find the other among the whole batch.

    With the cosine s between any two of the 2n views, and i' the other view of i's example:

        log(sum_{j != i} exp(s_ij / temperature)) - s_ii' / temperature

    An example's loss is the sum over its two views. The views are scaled to unit norm here. Memory
    is linear in the batch.

    Args:
        temperature: divides the cosines, greater than 0.
        margin: kept for its place in the signature; no value depends on it, as there.
        reduction: a reduction of Keras; the means are over all examples.
        name: optional name of the loss.
        dtype: dtype of the views and the result; sums are in float32 at least.

    Raises:
        ValueError: a temperature that is not greater than 0, or an unknown reduction.

    Reference:
        TensorFlow Similarity, losses.SimCLRLoss; Chen et al., A Simple Framework for Contrastive
        Learning of Visual Representations, 2020, https://arxiv.org/abs/2002.05709

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.losses import SimCLRLoss
    >>> za, zb = np.eye(3, dtype="float32"), np.eye(3, dtype="float32")
    >>> print(f"{float(SimCLRLoss(temperature=0.5)(za, zb)):.4f}")
    0.8653
    """

    def __init__(
        self,
        temperature: float = 0.05,
        margin: float = 0.001,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(**options(reduction, name, dtype))
        self.temperature = checks.number(temperature, "temperature", above=0.0)
        self.margin = checks.number(margin, "margin")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """Compute the loss.

        Args:
            y_true: the first view za, [batch, d].
            y_pred: the second view zb, [batch, d].
            sample_weight: optional weight of each example, a scalar, [batch] or [batch, 1].

        Returns:
            A scalar, or [batch] where the reduction is "none" or None.

        Raises:
            ValueError: a wrong rank, or shapes that differ.
        """
        with keras.name_scope(self.name):
            za, zb = two_views(y_true, y_pred, self.dtype)
            distributed.refuse(self, za)
            weights = anchor_weights(sample_weight, like=za[:, 0])
            if self.reduction in (None, "none"):
                return ops.cast(or_nan(self._rows(za, zb) * weights, za, zb), self.dtype)
            z, examples, partners = _joined(za, zb)
            both = ops.concatenate([weights, weights])
            total, _ = streaming.weighted_sum(
                self._block, z, z, both, (examples, partners), (examples,)
            )
            every = ops.ones_like(weights, dtype="bool")
            loss = or_nan(reduced(total, every, weights, self.reduction), za, zb)
            return ops.cast(loss, self.dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """Return the loss of each example [batch], neither weighted nor reduced."""
        views = two_views(y_true, y_pred, self.dtype)
        distributed.refuse(self, views[0])
        return ops.cast(or_nan(self._rows(*views), *views), self.dtype)

    def _rows(self, za: Tensor, zb: Tensor) -> Tensor:
        z, examples, partners = _joined(za, zb)
        loss, _ = streaming.per_anchor(self._block, z, z, (examples, partners), (examples,))
        return ops.sum(ops.reshape(loss, (2, -1)), axis=0)

    def _block(
        self, x: Tensor, r: Tensor, examples: Tensor, partners: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss of some views; `partners` are their other views, `columns` the examples of r."""
        x = x / self.temperature
        own = ops.sum(x * ops.take(r, partners, axis=0), axis=1, keepdims=True)
        same = ops.equal(ops.expand_dims(examples, 1), ops.expand_dims(columns, 0))
        # Few passes over [t, m]: what is masked is -inf, whose exp and gradient are 0.
        lowest = ops.full_like(own, -float("inf"))
        logit = ops.where(same, lowest, x @ ops.transpose(r))
        largest = ops.stop_gradient(ops.max(logit, axis=1, keepdims=True))
        some = largest > lowest  # nothing is left in a batch of one
        largest = ops.where(some, largest, ops.zeros_like(largest))
        total = ops.sum(ops.exp(logit - largest), axis=1, keepdims=True)
        other = largest + ops.log(ops.where(some, total, ops.ones_like(total)))
        # Not the log of the whole sum, so that a small loss keeps its digits.
        rows = ops.where(some, softplus(other - own), ops.zeros_like(own))
        return ops.squeeze(rows, axis=1), ops.ones_like(examples, dtype="bool")

    def get_config(self) -> dict[str, Any]:
        return {**base_config(self), "temperature": self.temperature, "margin": self.margin}


def _joined(za: Tensor, zb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All views as unit rows [2n, d], their examples, and where their other views are."""
    n = ops.shape(za)[0]
    first = ops.arange(n, dtype="int32")
    return (
        unit_rows(ops.concatenate([za, zb])),
        ops.concatenate([first, first]),
        ops.concatenate([first + n, first]),
    )
