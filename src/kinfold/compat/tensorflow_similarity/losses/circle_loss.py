"""`tensorflow_similarity.losses.CircleLoss`."""

from dataclasses import replace
from typing import Any

import keras

from kinfold import losses
from kinfold.compat import keras2
from kinfold.compat.tensorflow_similarity.distances import get
from kinfold.compat.tensorflow_similarity.losses.batch_mean import BatchMean
from kinfold.core.checks import Tensor
from kinfold.core.numerics import softplus
from kinfold.streaming import Family


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class CircleLoss(BatchMean, losses.CircleLoss):
    """The circle loss of TensorFlow Similarity, which keeps positives and negatives apart.

    Per anchor, with the logits of `kinfold.losses.CircleLoss`:

        log(1 + sum_P exp(positive logit)) + log(1 + sum_N exp(negative logit))

    The mean is over the whole batch, invalid anchors too, and without reduction the loss has the
    shape [batch, 1].

    Args:
        distance: a name, instance or config; see `tensorflow_similarity.distances.get`.
        gamma: scale of the logits, greater than 0.
        margin: the relaxation, in units of the distance.
        name: optional name of the loss.
        **kwargs: `reduction` and `dtype`, as in Keras.

    Reference:
        TensorFlow Similarity, losses.CircleLoss; https://arxiv.org/abs/2002.10857

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.losses import CircleLoss
    >>> x = np.array([[1, 0], [0.8, 0.6], [0, 1]], "float32")
    >>> print(f"{float(CircleLoss(gamma=10.0)(np.array([0, 0, 1]), x)):.4f}")
    0.9458
    """

    def __init__(
        self,
        distance: Any = "cosine",
        gamma: float = 80.0,
        margin: float = 0.4,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        keras2.rename_reduction(kwargs)
        super().__init__(gamma, margin, get(distance), name=name, **kwargs)

    def combine(self, positive: Tensor, negative: Tensor) -> Tensor:
        return softplus(positive) + softplus(negative)

    def family(self) -> Family:
        return replace(super().family(), of=CircleLoss)
