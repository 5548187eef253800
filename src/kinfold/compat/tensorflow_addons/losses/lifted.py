"""`tfa.losses.LiftedStructLoss` and `lifted_struct_loss`."""

from typing import Any

import keras

from kinfold import losses
from kinfold.compat import keras2
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.losses.cache import cached_loss


@keras.saving.register_keras_serializable("kinfold.tensorflow_addons")
class LiftedStructLoss(losses.LiftedStructureLoss):
    """The lifted structure loss of TensorFlow Addons; see `kinfold.losses.LiftedStructureLoss`.

    Args:
        margin: distance that negatives are pushed to.
        name: optional name of the loss.
        **kwargs: `reduction` and `dtype`, as in Keras.

    Reference:
        TensorFlow Addons, tfa.losses.LiftedStructLoss; https://arxiv.org/abs/1511.06452

    Example:

    >>> import numpy as np
    >>> import kinfold.compat.tensorflow_addons as tfa
    >>> x = np.array([[0, 0], [3, 4], [0, 1]], "float32")
    >>> print(f"{float(tfa.losses.LiftedStructLoss()(np.array([0, 0, 1]), x)):.4f}")
    12.6923
    """

    def __init__(self, margin: float = 1.0, name: str | None = None, **kwargs: Any) -> None:
        keras2.rename_reduction(kwargs)
        super().__init__(margin, name=name, **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["margin"] = config.pop("negative_margin")
        return config


def lifted_struct_loss(labels: Any, embeddings: Any, margin: float = 1.0) -> Tensor:
    """Compute the lifted structure loss; see `LiftedStructLoss`.

    Args:
        labels: integer class ids [batch].
        embeddings: [batch, d].
        margin: distance that negatives are pushed to.

    Returns:
        A scalar.
    """
    return cached_loss(LiftedStructLoss, float(margin), dtype=checks.compute_dtype(embeddings))(
        labels, embeddings
    )
