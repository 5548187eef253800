"""ArcFace: an additive angular margin, with one or several prototypes per class."""

import math
from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import largest, square_root
from kinfold.losses.prototypes import PrototypeLoss, of_each_prototype


@keras.saving.register_keras_serializable("kinfold")
class ArcFaceLoss(PrototypeLoss):
    """ArcFace loss: a softmax over classes, with an angle added to that of the own class.

    With theta_c the angle between an example and the prototype of class c, y its class:

        -log(exp(scale cos(theta_y + margin)) / (exp(scale cos(theta_y + margin))
             + sum_{c != y} exp(scale cos(theta_c))))

    Where theta_y + margin is beyond a half turn, cos(theta_y) - margin sin(margin) stands in for
    cos(theta_y + margin), so that the loss keeps growing with the angle.

    Args:
        num_classes: number of classes; labels are ids from 0 up to it.
        embedding_size: dimensions of the embeddings.
        margin: angle in radians, from 0 to pi.
        scale: of the logits, greater than 0.
        sub_centers: prototypes per class. With more than one, theta_c is the angle to the nearest
            of class c, so that its noisy examples gather around prototypes of their own.

    The other arguments are those of `PrototypeLoss`.

    Raises:
        TypeError: the margin or the scale is not a number.
        ValueError: fewer than two classes, a margin, a scale or sub-centers out of range.

    Reference:
        Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019,
        https://arxiv.org/abs/1801.07698; Deng et al., Sub-center ArcFace: Boosting Face
        Recognition by Large-Scale Noisy Web Faces, ECCV 2020

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import ArcFaceLoss
    >>> loss = ArcFaceLoss(num_classes=2, embedding_size=2, scale=4.0)
    >>> _ = loss.trainable_variables[0].assign([[1, 0], [0, 1]])
    >>> x = np.array([[0.8, 0.6], [0, 1]], "float32")
    >>> value = loss(np.array([0, 1]), x)
    >>> print(f"{ops.convert_to_numpy(value):.4f}")
    0.5806
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 0.5,
        scale: float = 64.0,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "arc_face_loss",
        dtype: Any = None,
        *,
        sub_centers: int = 1,
        gather_across_devices: bool = True,
        shard_classes: bool = False,
    ) -> None:
        super().__init__(
            num_classes,
            embedding_size,
            block_size,
            reduction,
            name,
            dtype,
            gather_across_devices,
            prototypes_per_class=checks.count(sub_centers, "sub_centers"),
            shard_classes=shard_classes,
        )
        self.margin = checks.number(margin, "margin")
        if not 0 <= self.margin <= math.pi:
            raise ValueError(
                "`margin` must be an angle in radians from 0 to pi. "
                f"Received: margin={margin}, which is in degrees perhaps."
            )
        self.scale = checks.number(scale, "scale", above=0.0)

    def similarity(self, x: Tensor, prototypes: Tensor) -> Tensor:
        if self.prototypes_per_class == 1:
            return super().similarity(x, prototypes)
        return largest(of_each_prototype(x, prototypes), 1)

    def positive_logit(self, similarity: Tensor) -> Tensor:
        cos, sin = math.cos(self.margin), math.sin(self.margin)
        turned = similarity * cos - square_root(1.0 - similarity * similarity) * sin
        return self.scale * ops.where(similarity >= -cos, turned, similarity - self.margin * sin)

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return self.scale * similarity

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "margin": self.margin,
            "scale": self.scale,
            "sub_centers": self.prototypes_per_class,
        }
