"""Normalised softmax: a softmax over the cosines to the classes."""

from typing import Any

import keras

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.losses.prototypes import PrototypeLoss


@keras.saving.register_keras_serializable("kinfold")
class NormalizedSoftmaxLoss(PrototypeLoss):
    """Normalised softmax loss: a softmax over the cosines to the prototypes, without a margin.

    With s_c the cosine between an example and the prototype of class c, y its class:

        -log(exp(s_y / temperature) / sum_c exp(s_c / temperature))

    Args:
        num_classes: number of classes; labels are ids from 0 up to it.
        embedding_size: dimensions of the embeddings.
        temperature: scale of the cosines, greater than 0.

    The other arguments are those of `PrototypeLoss`.

    Raises:
        TypeError: the temperature is not a number.
        ValueError: fewer than two classes, or temperature <= 0.

    Reference:
        Zhai and Wu, Classification is a Strong Baseline for Deep Metric Learning, BMVC 2019,
        https://arxiv.org/abs/1811.12649

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import NormalizedSoftmaxLoss
    >>> loss = NormalizedSoftmaxLoss(num_classes=2, embedding_size=2, temperature=0.5)
    >>> _ = loss.trainable_variables[0].assign([[1, 0], [0, 1]])
    >>> x = np.array([[0.8, 0.6], [0, 1]], "float32")
    >>> value = loss(np.array([0, 1]), x)
    >>> print(f"{ops.convert_to_numpy(value):.4f}")
    0.3200
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        temperature: float = 0.05,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "normalized_softmax_loss",
        dtype: Any = None,
        *,
        gather_across_devices: bool = True,
        shard_classes: bool = False,
    ) -> None:
        shared = block_size, reduction, name, dtype, gather_across_devices
        super().__init__(num_classes, embedding_size, *shared, shard_classes=shard_classes)
        self.temperature = checks.number(temperature, "temperature", above=0.0)

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return similarity / self.temperature

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return similarity / self.temperature

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}
