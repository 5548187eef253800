"""Contrastive loss, of given distances and of all pairs of a batch."""

from typing import Any

import keras
from keras import ops

from kinfold import distributed
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32, count_in_row, divide, rows_or_nan
from kinfold.losses.base import PairLoss
from kinfold.losses.reduction import anchor_weights, reduced


@keras.saving.register_keras_serializable("kinfold")
class ContrastiveLoss(keras.losses.Loss):
    """Contrastive loss of pairs whose distances are given.

    For a pair with the label y (1: same kind, 0: different kinds) at the distance d:

        y * d^2 + (1 - y) * relu(margin - d)^2

    Args:
        margin: distance beyond which a pair of different kinds costs nothing.
        reduction: a reduction of Keras; the means divide by the number of pairs, or by their
            weight.
        name: optional name of the loss.
        dtype: dtype of the computation; None means `keras.config.floatx()`.
        gather_across_devices: see `PairLoss`.

    Raises:
        TypeError: the margin is not a number, or the name not a string.
        ValueError: an unknown reduction.

    Reference:
        Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006,
        http://yann.lecun.com/exdb/publis/pdf/hadsell-chopra-lecun-06.pdf

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import ContrastiveLoss
    >>> print(f"{float(ContrastiveLoss()(np.array([1, 0]), np.array([0.5, 0.8]))):.4f}")
    0.1450
    """

    def __init__(
        self,
        margin: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "contrastive_loss",
        dtype: Any = None,
        *,
        gather_across_devices: bool = True,
    ) -> None:
        super().__init__(name=checks.text(name, "name"), reduction=reduction, dtype=dtype)
        self.margin = checks.number(margin, "margin")
        self.gather_across_devices = bool(gather_across_devices)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """Compute the loss.

        Args:
            y_true: integers 0 or 1, [batch] or [batch, 1].
            y_pred: distances [batch] or [batch, 1].
            sample_weight: optional weight of each pair, a scalar, [batch] or [batch, 1].

        Returns:
            A scalar, or [batch] where the reduction is "none" or None.

        Raises:
            TypeError: labels that are not integers.
            ValueError: labels other than 0 and 1 (where they can be looked at: not inside a
                compiled step), wrong ranks, or counts that differ.
        """
        with keras.name_scope(self.name):
            rows = at_least_float32(self.call(y_true, y_pred))
            weights = anchor_weights(sample_weight, like=rows)
            rows = rows * weights
            if self.reduction not in (None, "none"):
                every = ops.ones_like(rows, dtype="bool")
                ranks = distributed.ranks(self, rows)
                rows = reduced(ops.sum(rows), every, weights, self.reduction, ranks)
            return ops.cast(rows, self.dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """Return the loss of each pair [batch], neither weighted nor reduced."""
        return _contrastive(y_true, y_pred, self.margin, self.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            "margin": self.margin,
            "reduction": self.reduction,
            "name": self.name,
            "dtype": self.dtype,
            "gather_across_devices": self.gather_across_devices,
        }


def contrastive_loss(y_true: Any, y_pred: Any, margin: float = 1.0) -> Tensor:
    """Compute the contrastive loss of each pair, from its distance; see `ContrastiveLoss`.

    Args:
        y_true: integers 0 (different kinds) or 1 (same kind), [batch] or [batch, 1].
        y_pred: distances [batch] or [batch, 1].
        margin: distance beyond which a pair of different kinds costs nothing.

    Returns:
        Floating [batch].

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import contrastive_loss
    >>> distances = np.array([0.5, 0.5, 2.0], "float32")
    >>> ops.convert_to_numpy(contrastive_loss(np.array([1, 0, 0]), distances))
    array([0.25, 0.25, 0.  ], dtype=float32)
    """
    margin = checks.number(margin, "margin")
    return _contrastive(y_true, y_pred, margin, checks.compute_dtype(y_pred))


def _contrastive(y_true: Any, y_pred: Any, margin: float, dtype: str) -> Tensor:
    y = checks.labels(y_true, "y_true")
    d = ops.convert_to_tensor(y_pred, dtype=dtype)
    if len(checks.known_shape(d, "y_pred")) == 2 and d.shape[1] == 1:
        d = ops.squeeze(d, axis=1)
    if len(d.shape) != 1:
        raise ValueError(
            "`y_pred` must hold one distance per pair, shape [batch] or [batch, 1]. Received shape "
            f"{tuple(d.shape)}; for embeddings use PairContrastiveLoss or layers.PairDistance."
        )
    checks.same_count(y, d, ("y_true", "y_pred"))
    checks.binary(y, "y_true")
    far = ops.square(ops.relu(margin - d))
    return rows_or_nan(ops.where(ops.equal(y, 1), ops.square(d), far), d)


@keras.saving.register_keras_serializable("kinfold")
class PairContrastiveLoss(PairLoss):
    """Contrastive loss of all pairs that a batch of embeddings forms.

    With the distance d, for an anchor with positives P and negatives N:

        mean_P relu(d - positive_margin) + mean_M (negative_margin - d),
        M = {n in N: d_n < negative_margin}

    An anchor's positives and its negatives weigh the same, however many there are of each. Only
    negatives within the margin count, and later in training these are few. The hinges are not
    squared, unlike in `ContrastiveLoss`: an encoder learns far more from them.

    Args:
        positive_margin: distance below which a positive costs nothing.
        negative_margin: distance above which a negative costs nothing.

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: a margin is not a number.
        ValueError: an unknown distance or reduction, or a similarity as the distance.

    Reference:
        Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006;
        the positive margin is that of Lin et al., 2015, https://arxiv.org/abs/1501.02102

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import PairContrastiveLoss
    >>> x = np.array([[0, 0], [3, 4], [0, 0.5]], "float32")
    >>> float(PairContrastiveLoss(reduction="sum")(np.array([0, 0, 1]), x))
    10.5
    """

    def __init__(
        self,
        positive_margin: float = 0.0,
        negative_margin: float = 1.0,
        distance: Any = "euclidean",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "pair_contrastive_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)
        self.refuse_similarity()
        self.positive_margin = checks.number(positive_margin, "positive_margin")
        self.negative_margin = checks.number(negative_margin, "negative_margin")

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        pulled = ops.logical_and(positive, distance > self.positive_margin)
        pushed = ops.logical_and(negative, distance < self.negative_margin)
        near, far = (_one_over_count(mask, distance) for mask in (positive, pushed))
        weight = ops.where(pulled, near, ops.where(pushed, -far, ops.zeros_like(far)))
        dtype = keras.backend.standardize_dtype(distance.dtype)
        margins = (self.positive_margin, self.negative_margin)
        margin = ops.where(positive, *(ops.convert_to_tensor(m, dtype=dtype) for m in margins))
        return ops.sum((distance - margin) * weight, axis=1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "positive_margin": self.positive_margin,
            "negative_margin": self.negative_margin,
        }


def _one_over_count(mask: Tensor, like: Tensor) -> Tensor:
    """1 over how many each row of `mask` allows [t, 1]; 0 for a row without any."""
    count = ops.cast(count_in_row(mask), like.dtype)
    return ops.expand_dims(divide(ops.ones_like(count), count), 1)
