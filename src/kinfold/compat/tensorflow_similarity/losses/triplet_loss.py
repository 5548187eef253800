"""`tensorflow_similarity.losses.TripletLoss` and `PNLoss`."""

from typing import Any

import keras
from keras import ops

from kinfold import losses
from kinfold.compat import keras2
from kinfold.compat.tensorflow_similarity.distances import get
from kinfold.compat.tensorflow_similarity.losses.batch_mean import BatchMean
from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row
from kinfold.losses import mining


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class TripletLoss(BatchMean, losses.TripletLoss):
    """The triplet loss of TensorFlow Similarity: one triplet an anchor.

    Differences from `kinfold.losses.TripletLoss`: the mean is over the whole batch, the loss
    without reduction has the shape [batch, 1], and a semi-hard negative lies beyond the furthest
    positive, whichever positive is chosen. An anchor without positives counts as there: it takes
    the nearest of all references (itself) as a hard positive, the furthest as an easy one.

    Args:
        distance: a name, instance or config; see `tensorflow_similarity.distances.get`.
        positive_mining_strategy: "hard" (the furthest) or "easy" (the nearest).
        negative_mining_strategy: "hard" (the nearest), "semi-hard" or "easy" (the furthest).
        margin: margin of the triplets; None for the soft form.
        name: optional name of the loss.
        **kwargs: `reduction` and `dtype`, as in Keras.

    Reference:
        TensorFlow Similarity, losses.TripletLoss; https://arxiv.org/abs/1703.07737

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.losses import TripletLoss
    >>> x = np.array([[1, 0], [0.8, 0.6], [0, 1]], "float32")
    >>> print(f"{float(TripletLoss(margin=0.5)(np.array([0, 0, 1]), x)):.4f}")
    0.1333
    """

    swaps = False

    def __init__(
        self,
        distance: Any = "cosine",
        positive_mining_strategy: str = "hard",
        negative_mining_strategy: str = "semi-hard",
        margin: float | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        keras2.rename_reduction(kwargs)
        super().__init__(
            margin,
            positive_mining_strategy,
            negative_mining_strategy,
            self.swaps,
            get(distance),
            name=name,
            **kwargs,
        )

    def valid_anchors(self, positive: Tensor, negative: Tensor) -> Tensor:
        return any_in_row(negative)

    def chosen(self, d: Tensor, positive: Tensor) -> Tensor:
        opposite = "easy" if self.positives == "hard" else "hard"
        of_all = mining.of_positives(opposite, d, ops.ones_like(positive))
        return ops.where(any_in_row(positive), super().chosen(d, positive), of_all)

    def near(self, d: Tensor, position: Tensor, positive: Tensor) -> Tensor:
        near = super().near(d, position, positive)
        # An anchor's distance to itself is a constant.
        free = ops.logical_or(any_in_row(positive), self.positives == "easy")
        return ops.where(free, near, ops.stop_gradient(near))

    def beyond(self, d: Tensor, near: Tensor, positive: Tensor) -> Tensor:
        furthest = ops.max(ops.where(positive, d, ops.full_like(d, -float("inf"))), axis=1)
        return ops.where(any_in_row(positive), furthest, ops.min(d, axis=1))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["positive_mining_strategy"] = config.pop("positives")
        config["negative_mining_strategy"] = config.pop("negatives")
        del config["swap"]
        return config


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class PNLoss(TripletLoss):
    """The PN loss of TensorFlow Similarity: triplets whose negative may be near the positive.

    As `TripletLoss`, with the distance of the negative to the positive where that is smaller than
    the one to the anchor.

    Args:
        distance: see `TripletLoss`, as all others.
        positive_mining_strategy: see `TripletLoss`.
        negative_mining_strategy: see `TripletLoss`.
        margin: see `TripletLoss`.
        name: optional name of the loss.
        **kwargs: `reduction` and `dtype`, as in Keras.

    Reference:
        TensorFlow Similarity, losses.PNLoss; Taha et al., Boosting Standard Classification
        Architectures Through a Ranking Regularizer, 2019, https://arxiv.org/abs/1901.08616

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.losses import PNLoss
    >>> x = np.array([[1, 0], [0.8, 0.6], [0, 1]], "float32")
    >>> print(f"{float(PNLoss(margin=0.5)(np.array([0, 0, 1]), x)):.4f}")
    0.2333
    """

    swaps = True
