"""`tfa.losses.NpairsLoss`, `tfa.losses.NpairsMultilabelLoss` and their functions."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row, at_least_float32, divide, log_sum_exp, or_nan


def npairs_loss(y_true: Any, y_pred: Any) -> Tensor:
    """Compute the n-pairs loss of a given similarity matrix.

    With the similarities s, mean_i (log(sum_j exp(s_ij)) - mean_{j: y_j = y_i} s_ij).

    Args:
        y_true: integer class ids [n] or [n, 1].
        y_pred: similarities [n, n] of n anchors to their n positives; sums are in float32 at least.

    Returns:
        A scalar.

    Raises:
        TypeError: labels that are not integers.
        ValueError: similarities that are not [n, n], or counts that differ.

    Reference:
        TensorFlow Addons, tfa.losses.npairs_loss; Sohn, Improved Deep Metric Learning with
        Multi-class N-pair Loss Objective, NIPS 2016.

    Example:

    >>> import numpy as np
    >>> import kinfold.compat.tensorflow_addons as tfa
    >>> s = np.array([[2, 0], [0, 2]], "float32")
    >>> print(f"{float(tfa.losses.npairs_loss(np.array([0, 1]), s)):.4f}")
    0.1269
    """
    s = _similarities(y_pred, checks.compute_dtype(y_pred))
    return _npairs(_same_class(y_true), s)


def npairs_multilabel_loss(y_true: Any, y_pred: Any) -> Tensor:
    """Compute the n-pairs loss of a given similarity matrix, for examples of several labels.

    With the similarities s, and k_ij labels that i and j share,
    mean_i (log(sum_j exp(s_ij)) - sum_j k_ij s_ij / sum_j k_ij), over the anchors with a label
    (one without makes the result NaN in TensorFlow Addons).

    Args:
        y_true: 1 for a label and 0 for none, [n, labels]; on the TensorFlow backend also a
            `tf.SparseTensor` of that shape.
        y_pred: similarities [n, n] of n anchors to their n positives; sums are in float32 at least.

    Returns:
        A scalar.

    Raises:
        TypeError: sparse labels that the backend does not have, or a list of them.
        ValueError: labels that are not [n, labels], similarities that are not [n, n], or counts
            that differ.

    Reference:
        TensorFlow Addons, tfa.losses.npairs_multilabel_loss.

    Example:

    >>> import numpy as np
    >>> import kinfold.compat.tensorflow_addons as tfa
    >>> s, labels = np.array([[2, 0], [0, 2]], "float32"), np.array([[1, 1], [0, 1]])
    >>> print(f"{float(tfa.losses.npairs_multilabel_loss(labels, s)):.4f}")
    0.9603
    """
    s = _similarities(y_pred, checks.compute_dtype(y_pred))
    return _npairs(_shared_labels(y_true), s)


class _OfBatch(keras.losses.Loss):
    """A loss with one value per batch, whose labels keep their dtype."""

    shared: Callable[[Any], Tensor]

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """Compute the loss, a scalar; `sample_weight` must be a number or None."""
        if isinstance(sample_weight, (list, tuple)) or tuple(getattr(sample_weight, "shape", ())):
            raise ValueError(
                f"{type(self).__name__} has one value for the whole batch, so `sample_weight` must "
                f"be a number or None. Received: {type(sample_weight).__name__}."
            )
        with keras.name_scope(self.name):
            loss = self.call(y_true, y_pred)
            return loss if sample_weight is None else loss * ops.cast(sample_weight, loss.dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        s = _similarities(y_pred, self.dtype)
        return ops.cast(_npairs(type(self).shared(y_true), s), self.dtype)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype}


def _similarities(y_pred: Any, dtype: str) -> Tensor:
    s = at_least_float32(ops.convert_to_tensor(y_pred, dtype=dtype))
    shape = checks.known_shape(s, "y_pred")
    if len(shape) != 2 or (None not in shape and shape[0] != shape[1]):
        raise ValueError(
            "`y_pred` must be a matrix of similarities [n, n], of n anchors to their n positives, "
            f"for example anchors @ positives.T. Received shape {shape}."
        )
    return s


def _npairs(shared: Tensor, s: Tensor) -> Tensor:
    checks.same_count(shared, s, ("y_true", "y_pred"))
    shared = ops.cast(shared, keras.backend.standardize_dtype(s.dtype))
    share = divide(shared, ops.sum(shared, axis=1, keepdims=True))
    some = any_in_row(shared > 0)
    total = log_sum_exp(s, ops.ones_like(s, dtype="bool"))
    rows = total - ops.sum(share * s, axis=1)
    rows = ops.where(some, rows, ops.zeros_like(rows))
    count = ops.sum(ops.cast(some, keras.backend.standardize_dtype(s.dtype)))
    return or_nan(divide(ops.sum(rows), count), s)


def _same_class(y_true: Any) -> Tensor:
    y = checks.labels(y_true, "y_true")
    return ops.equal(ops.expand_dims(y, 1), ops.expand_dims(y, 0))


def _shared_labels(y_true: Any) -> Tensor:
    """How many labels each two examples share, float32 [n, n]."""
    y = ops.cast(_dense(y_true), "float32")
    if len(y.shape) != 2:
        raise ValueError(
            "`y_true` must have the shape [n, labels], 1 for a label and 0 for none. "
            f"Received shape {tuple(y.shape)}; for class ids use npairs_loss."
        )
    return y @ ops.transpose(y)


def _dense(y_true: Any) -> Tensor:
    several = isinstance(y_true, (list, tuple))
    sparse = any("Sparse" in type(y).__name__ for y in (y_true if several else [y_true]))
    if not sparse:
        return ops.convert_to_tensor(y_true)
    if several or keras.backend.backend() != "tensorflow":
        raise TypeError(
            "`y_true` must be one dense tensor [n, labels] of 0 and 1 (on the TensorFlow backend "
            "also one tf.SparseTensor). Received sparse labels; pass tf.sparse.to_dense(y_true), "
            "and a list of them stacked."
        )
    import tensorflow as tf

    return tf.sparse.to_dense(y_true)


@keras.saving.register_keras_serializable("kinfold.tensorflow_addons")
class NpairsLoss(_OfBatch):
    """The n-pairs loss of a given similarity matrix, one value a batch; see `npairs_loss`.

    Args:
        name: optional name of the loss.
        dtype: dtype of the similarities and the result; None means `keras.config.floatx()`.

    Reference:
        TensorFlow Addons, tfa.losses.NpairsLoss.

    Example:

    >>> import numpy as np
    >>> import kinfold.compat.tensorflow_addons as tfa
    >>> s = np.array([[2, 0], [0, 2]], "float32")
    >>> print(f"{float(tfa.losses.NpairsLoss()(np.array([0, 1]), s)):.4f}")
    0.1269
    """

    shared = staticmethod(_same_class)

    def __init__(self, name: str | None = "npairs_loss", dtype: Any = None) -> None:
        super().__init__(name=checks.text(name, "name"), reduction="none", dtype=dtype)


@keras.saving.register_keras_serializable("kinfold.tensorflow_addons")
class NpairsMultilabelLoss(_OfBatch):
    """The n-pairs loss for examples of several labels; see `npairs_multilabel_loss`.

    Args:
        name: optional name of the loss.
        dtype: dtype of the similarities and the result; None means `keras.config.floatx()`.

    Reference:
        TensorFlow Addons, tfa.losses.NpairsMultilabelLoss.

    Example:

    >>> import numpy as np
    >>> import kinfold.compat.tensorflow_addons as tfa
    >>> s, labels = np.array([[2, 0], [0, 2]], "float32"), np.array([[1, 1], [0, 1]])
    >>> print(f"{float(tfa.losses.NpairsMultilabelLoss()(labels, s)):.4f}")
    0.9603
    """

    shared = staticmethod(_shared_labels)

    def __init__(self, name: str | None = "npairs_multilabel_loss", dtype: Any = None) -> None:
        super().__init__(name=checks.text(name, "name"), reduction="none", dtype=dtype)
