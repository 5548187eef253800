"""`tensorflow_similarity.losses.SoftNearestNeighborLoss`."""

from dataclasses import replace
from typing import Any

import keras
from keras import ops

from kinfold import losses
from kinfold.compat import keras2
from kinfold.compat.tensorflow_similarity.distances import get
from kinfold.core.checks import Tensor
from kinfold.streaming import Family


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class SoftNearestNeighborLoss(losses.SoftNearestNeighborLoss):
    """The soft nearest neighbour loss of TensorFlow Similarity.

    Differences from `kinfold.losses.SoftNearestNeighborLoss`: 1e-9 is added within the log, so that
    the loss ends at 20.7, and the mean is over the whole batch.

    Args:
        distance: a name, instance or config; see `tensorflow_similarity.distances.get`.
        temperature: scale of the distances, greater than 0.
        name: optional name of the loss.
        **kwargs: `reduction` and `dtype`, as in Keras.

    Reference:
        TensorFlow Similarity, losses.SoftNearestNeighborLoss; https://arxiv.org/abs/1902.01889

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.losses import SoftNearestNeighborLoss
    >>> x = np.array([[1, 0], [0.8, 0.6], [0, 1]], "float32")
    >>> print(f"{float(SoftNearestNeighborLoss()(np.array([0, 0, 1]), x)):.4f}")
    0.2323
    """

    def __init__(
        self,
        distance: Any = "squared_euclidean",
        temperature: float = 1.0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        keras2.rename_reduction(kwargs)
        super().__init__(temperature, get(distance), name=name, **kwargs)

    def combine(self, positive: Tensor, negative: Tensor) -> Tensor:
        return -ops.log(1e-9 + ops.exp(-super().combine(positive, negative)))

    def counted(self, counted: Tensor) -> Tensor:
        return ops.ones_like(counted)

    def family(self) -> Family:
        return replace(super().family(), of=SoftNearestNeighborLoss)
