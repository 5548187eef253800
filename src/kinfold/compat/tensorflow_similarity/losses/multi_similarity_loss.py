"""`tensorflow_similarity.losses.MultiSimilarityLoss`."""

from dataclasses import replace
from typing import Any

import keras

from kinfold import losses
from kinfold.compat import keras2
from kinfold.compat.tensorflow_similarity.distances import get
from kinfold.compat.tensorflow_similarity.losses.batch_mean import BatchMean
from kinfold.core import checks
from kinfold.streaming import Family


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class MultiSimilarityLoss(BatchMean, losses.MultiSimilarityLoss):
    """The multi-similarity loss of TensorFlow Similarity, which mines its pairs.

    `kinfold.losses.MultiSimilarityLoss` with threshold = center - lmda, and a mean over the whole
    batch; the loss without reduction has the shape [batch, 1].

    Args:
        distance: a name, instance or config; see `tensorflow_similarity.distances.get`.
        alpha: scale of the positives' logits, greater than 0.
        beta: scale of the negatives' logits, greater than 0.
        epsilon: margin of the pairs that count, in units of the distance.
        lmda: how far the threshold lies below the center.
        center: the largest distance, 1 for cosine.
        name: optional name of the loss.
        **kwargs: `reduction` and `dtype`, as in Keras.

    Reference:
        TensorFlow Similarity, losses.MultiSimilarityLoss; https://arxiv.org/abs/1904.06627

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.losses import MultiSimilarityLoss
    >>> x = np.array([[1, 0], [0, 1], [0.8, 0.6]], "float32")
    >>> print(f"{float(MultiSimilarityLoss()(np.array([0, 0, 1]), x)):.4f}")
    0.5712
    """

    def __init__(
        self,
        distance: Any = "cosine",
        alpha: float = 2.0,
        beta: float = 40.0,
        epsilon: float = 0.1,
        lmda: float = 0.5,
        center: float = 1.0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        keras2.rename_reduction(kwargs)
        self.lmda = checks.number(lmda, "lmda")
        self.center = checks.number(center, "center")
        super().__init__(
            alpha, beta, self.center - self.lmda, epsilon, get(distance), name=name, **kwargs
        )

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "lmda": self.lmda, "center": self.center}
        del config["threshold"]
        return config

    def family(self) -> Family | None:
        family = super().family()
        return None if family is None else replace(family, of=MultiSimilarityLoss)
