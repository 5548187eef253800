"""`tfa.losses.ContrastiveLoss` and `tfa.losses.contrastive_loss`."""

from typing import Any

import keras
from keras import ops

from kinfold import losses
from kinfold.compat import keras2
from kinfold.core.checks import Tensor, is_concrete


@keras.saving.register_keras_serializable("kinfold.tensorflow_addons")
class ContrastiveLoss(losses.ContrastiveLoss):
    """The contrastive loss of TensorFlow Addons: y * d^2 + (1 - y) * relu(margin - d)^2.

    Differences from `kinfold.losses.ContrastiveLoss`: labels may be the floats 0.0 and 1.0, and
    the reduction may be Keras 2's "auto".

    Args:
        margin: distance beyond which a pair of different kinds costs nothing.
        reduction: a reduction of Keras; the mean divides by the number of pairs.
        name: optional name of the loss (the default is spelt as it was there).

    Reference:
        TensorFlow Addons, tfa.losses.ContrastiveLoss.

    Example:

    >>> import numpy as np
    >>> import kinfold.compat.tensorflow_addons as tfa
    >>> print(f"{float(tfa.losses.ContrastiveLoss()(np.array([1, 0]), np.array([0.5, 0.8]))):.4f}")
    0.1450
    """

    def __init__(
        self,
        margin: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "contrasitve_loss",
        dtype: Any = None,
        *,
        gather_across_devices: bool = True,
    ) -> None:
        reduction = keras2.reduction(reduction)
        super().__init__(
            margin, reduction, name, dtype, gather_across_devices=gather_across_devices
        )

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return super().call(_whole(y_true), y_pred)


def contrastive_loss(y_true: Any, y_pred: Any, margin: float = 1.0) -> Tensor:
    """Compute the contrastive loss of each pair, as `tfa.losses.contrastive_loss`.

    Args:
        y_true: 0 (different kinds) or 1 (same kind), integers or floats, [batch] or [batch, 1].
        y_pred: distances [batch] or [batch, 1].
        margin: distance beyond which a pair of different kinds costs nothing.

    Returns:
        Floating [batch].

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> import kinfold.compat.tensorflow_addons as tfa
    >>> distances = np.array([0.5, 0.5], "float32")
    >>> ops.convert_to_numpy(tfa.losses.contrastive_loss(np.array([1, 0]), distances))
    array([0.25, 0.25], dtype=float32)
    """
    return losses.contrastive_loss(_whole(y_true), y_pred, margin)


def _whole(y_true: Any) -> Tensor:
    """Labels 0.0 and 1.0 as integers; anything else as it is."""
    y = ops.convert_to_tensor(y_true)
    if "float" not in keras.backend.standardize_dtype(y.dtype):
        return y
    if is_concrete(y):
        values = ops.convert_to_numpy(ops.cast(y, "float32"))
        wrong = values[(values != 0) & (values != 1)]
        if wrong.size:
            raise ValueError(
                "`y_true` must hold 1 for pairs of the same kind and 0 for others. "
                f"Received the value {float(wrong[0])}."
            )
    return ops.cast(y, "int32")
