"""PairLoss: what every loss over the pairs of a batch shares."""

import warnings
from typing import Any

import keras
from keras import ops

from kinfold import checks, distances, pairs
from kinfold.checks import Tensor
from kinfold.numerics import divide, unit_rows


class PairLoss(keras.losses.Loss):
    """A loss over the pairs that anchors form with references; subclass it with one equation.

    A subclass defines `per_anchor`, the loss of each anchor as a function of its row of distances.
    Anchors without a positive or without a negative are invalid: their loss and gradient are 0 and
    a mean leaves them out. Labels stay integers throughout, unlike in `keras.losses.Loss`, which
    casts them to the loss's dtype and so merges large class ids.

    Args:
        distance: a name, instance or config; see `kinfold.distances.get`.
        remove_diagonal: whether the reference at an anchor's own position is no positive of it.
        normalize: whether to scale embeddings and references to unit norm first.
        reduction: "sum_over_batch_size" or "mean" (over valid anchors), "sum",
            "mean_with_sample_weight" (divides by the weight of the valid anchors), "none" or None.
        name: optional name of the loss.
        dtype: dtype of the computation; None means `keras.config.floatx()`, also for embeddings
            of half precision.

    Raises:
        ValueError: an unknown distance or reduction.

    Example:

    >>> import keras, numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import PairLoss
    >>> @keras.saving.register_keras_serializable("docs")
    ... class FurthestPositive(PairLoss):
    ...     def per_anchor(self, distance, positive, negative):
    ...         return ops.max(ops.where(positive, distance, 0.0), axis=1)
    >>> x = np.array([[1, 0], [0, 1], [-1, 0]], "float32")
    >>> float(FurthestPositive()(np.array([7, 7, 8]), x))
    1.0
    """

    def __init__(
        self,
        distance: Any = "cosine",
        remove_diagonal: bool = True,
        normalize: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=checks.text(name, "name"), reduction=reduction, dtype=dtype)
        self.distance = distances.get(distance)
        self.remove_diagonal = bool(remove_diagonal)
        self.normalize = bool(normalize)
        self._norms_checked = False

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Loss of each anchor of a block, from its distances to the references.

        Args:
            distance: floating [t, m].
            positive: boolean [t, m], the anchors' positives.
            negative: boolean [t, m], the anchors' negatives.

        Returns:
            Floating [t]. Values of invalid anchors are dropped, but must be finite.
        """
        raise NotImplementedError

    def __call__(
        self,
        y_true: Any,
        y_pred: Any,
        sample_weight: Any = None,
        *,
        ref_labels: Any = None,
        ref_embeddings: Any = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            y_true: integer class ids [batch] or [batch, 1].
            y_pred: embeddings [batch, d].
            sample_weight: optional weight of each anchor, a scalar, [batch] or [batch, 1].
            ref_labels: class ids [m] of the references; None means `y_true`.
            ref_embeddings: references [m, d]; None means `y_pred`.

        Returns:
            A scalar, or [batch] where the reduction is "none" or None.

        Raises:
            TypeError: labels that are not integers.
            ValueError: wrong ranks, or counts that differ.
        """
        with keras.name_scope(self.name):
            rows, valid = self._rows(y_true, y_pred, ref_labels, ref_embeddings)
            return reduce_rows(rows, self.counted(valid), sample_weight, self.reduction)

    def counted(self, valid: Tensor) -> Tensor:
        """Which anchors a mean counts, boolean [batch]: the valid ones."""
        return valid

    def call(
        self, y_true: Any, y_pred: Any, ref_labels: Any = None, ref_embeddings: Any = None
    ) -> Tensor:
        """Return the loss of each anchor [batch], neither weighted nor reduced."""
        return self._rows(y_true, y_pred, ref_labels, ref_embeddings)[0]

    def _rows(
        self, y_true: Any, y_pred: Any, ref_labels: Any, ref_embeddings: Any
    ) -> tuple[Tensor, Tensor]:
        """Loss [batch] and validity [batch] of each anchor."""
        _refuse_replicas()
        y = checks.labels(y_true, "y_true")
        x = checks.embeddings(y_pred, "y_pred", self.dtype)
        ref_y = y if ref_labels is None else checks.labels(ref_labels, "ref_labels")
        checks.same_count(y, x, ("y_true", "y_pred"))
        if ref_embeddings is None:
            r, ref_name = x, "y_pred"
        else:
            ref_name = "ref_embeddings"
            r = checks.embeddings(ref_embeddings, ref_name, self.dtype)
            checks.same_count(x, r, ("y_pred", ref_name), axis=1)
        checks.same_count(ref_y, r, ("y_true" if ref_labels is None else "ref_labels", ref_name))
        if self.normalize:
            unit = unit_rows(x)
            x, r = unit, unit if r is x else unit_rows(r)
        elif self.distance.needs_unit_rows and not self._norms_checked and checks.is_concrete(x):
            self._norms_checked = True
            _warn_unless_unit(x)
        if 0 in (x.shape[0], r.shape[0]):  # keras.ops has no max of nothing
            rows = ops.sum(x, axis=1)
            return ops.zeros_like(rows), ops.zeros_like(rows, dtype="bool")
        positions = ops.arange(ops.shape(y)[0], dtype="int32")
        return self._block(x, y, positions, r, ref_y)

    def _block(
        self, x: Tensor, y: Tensor, positions: Tensor, r: Tensor, ref_y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss [t] and validity [t] of a block of anchors at `positions` of the batch."""
        positive, negative = pairs.masks(y, ref_y, positions, self.remove_diagonal)
        valid = pairs.valid_anchors(positive, negative)
        loss = self.per_anchor(self.distance(x, r), positive, negative)
        return ops.where(valid, loss, ops.zeros_like(loss)), valid

    def get_config(self) -> dict[str, Any]:
        return {
            "distance": distances.serialize(self.distance),
            "remove_diagonal": self.remove_diagonal,
            "normalize": self.normalize,
            "reduction": self.reduction,
            "name": self.name,
            "dtype": self.dtype,
        }


def reduce_rows(
    rows: Tensor, valid: Tensor, sample_weight: Any = None, reduction: str | None = None
) -> Tensor:
    """Weight the anchors' losses and reduce them, as Keras does, with means over valid anchors.

    sum w_i loss_i, divided by the number of valid anchors ("sum_over_batch_size", "mean"), by their
    weight ("mean_with_sample_weight") or by nothing ("sum"); 0 where no anchor is valid.

    Args:
        rows: floating [n], 0 where `valid` is False.
        valid: boolean [n].
        sample_weight: None, a scalar, [n] or [n, 1].
        reduction: a reduction of Keras.

    Returns:
        A scalar, or [n] for "none" and None, of the dtype of `rows`.
    """
    dtype = keras.backend.standardize_dtype(rows.dtype)
    wide = "float64" if dtype == "float64" else "float32"  # bfloat16 counts only to 256
    rows, counted = ops.cast(rows, wide), ops.cast(valid, wide)
    if sample_weight is not None:
        weight = _weight(sample_weight, rows, wide)
        rows = rows * weight
        weight = counted * weight
    else:
        weight = counted
    if reduction not in (None, "none"):
        rows = ops.sum(rows)
        if reduction != "sum":
            divisor = weight if reduction == "mean_with_sample_weight" else counted
            rows = divide(rows, ops.sum(divisor))
    return ops.cast(rows, dtype)


def _weight(sample_weight: Any, rows: Tensor, dtype: str) -> Tensor:
    weight = ops.convert_to_tensor(sample_weight, dtype=dtype)
    shape = tuple(weight.shape)
    if len(shape) == 2 and shape[1] == 1:
        weight = ops.squeeze(weight, axis=1)
    if len(weight.shape) > 1 or (
        len(weight.shape) == 1
        and None not in (shape[0], rows.shape[0])
        and shape[0] != rows.shape[0]
    ):
        raise ValueError(
            "`sample_weight` must be a number or have one weight an anchor, shape [batch] or "
            f"[batch, 1], with batch {rows.shape[0]}. Received shape {shape}."
        )
    return weight


def _warn_unless_unit(x: Tensor) -> None:
    square = ops.convert_to_numpy(ops.sum(x * x, axis=-1))
    if square.size and abs(square - 1.0).max() > 1e-2:
        warnings.warn(
            "The cosine distance takes embeddings of unit norm, and these have norms from "
            f"{square.min() ** 0.5:.3g} to {square.max() ** 0.5:.3g}. End the model in "
            "kinfold.layers.L2Embedding, or give the loss normalize=True.",
            stacklevel=5,
        )


def _refuse_replicas() -> None:
    """A pair loss needs the whole batch; under tf.distribute each replica holds a part of it."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise NotImplementedError(
                "A pair loss under a tf.distribute strategy would see only each replica's part of "
                "the batch, and its pairs across replicas would be lost. Use one replica, or the "
                "JAX backend with keras.distribution, where the batch stays whole."
            )
