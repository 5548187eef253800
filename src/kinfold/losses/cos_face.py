"""CosFace: an additive margin on the cosine."""

from typing import Any

import keras

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.losses.prototypes import PrototypeLoss


@keras.saving.register_keras_serializable("kinfold")
class CosFaceLoss(PrototypeLoss):
    """CosFace loss: a softmax over classes, with a margin off the cosine to the own class.

    With s_c the cosine between an example and the prototype of class c, y its class:

        -log(exp(scale (s_y - margin)) / (exp(scale (s_y - margin)) + sum_{c != y} exp(scale s_c)))

    Args:
        num_classes: number of classes; labels are ids from 0 up to it.
        embedding_size: dimensions of the embeddings.
        margin: taken off the cosine.
        scale: of the logits, greater than 0.

    The other arguments are those of `PrototypeLoss`.

    Raises:
        TypeError: the margin or the scale is not a number.
        ValueError: fewer than two classes, or scale <= 0.

    Reference:
        Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018,
        https://arxiv.org/abs/1801.09414

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import CosFaceLoss
    >>> loss = CosFaceLoss(num_classes=2, embedding_size=2, scale=4.0)
    >>> _ = loss.trainable_variables[0].assign([[1, 0], [0, 1]])
    >>> x = np.array([[0.8, 0.6], [0, 1]], "float32")
    >>> value = loss(np.array([0, 1]), x)
    >>> print(f"{ops.convert_to_numpy(value):.4f}")
    0.5546
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 0.35,
        scale: float = 64.0,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "cos_face_loss",
        dtype: Any = None,
        *,
        gather_across_devices: bool = True,
        shard_classes: bool = False,
    ) -> None:
        shared = block_size, reduction, name, dtype, gather_across_devices
        super().__init__(num_classes, embedding_size, *shared, shard_classes=shard_classes)
        self.margin = checks.number(margin, "margin")
        self.scale = checks.number(scale, "scale", above=0.0)

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return self.scale * (similarity - self.margin)

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return self.scale * similarity

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin, "scale": self.scale}
