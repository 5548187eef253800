"""SphereFace: a margin that multiplies the angle to the own class."""

import math
from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import divide, softplus, unit_rows
from kinfold.losses.prototypes import PrototypeLoss


@keras.saving.register_keras_serializable("kinfold")
class SphereFaceLoss(PrototypeLoss):
    """SphereFace loss: a softmax over classes, with the angle to the own class multiplied.

    With |x| the norm of an example, theta_c the angle between it and the prototype of class c, y
    its class and m the margin:

        -log(exp(scale |x| psi(theta_y)) / (exp(scale |x| psi(theta_y))
             + sum_{c != y} exp(scale |x| cos(theta_c))))

        psi(theta) = (-1)^k cos(m theta) - 2 k   for theta from k pi / m to (k + 1) pi / m

    psi falls from 1 to 1 - 2 m as theta grows from 0 to pi. Prototypes are scaled to unit norm, and
    examples are not: a long example has large logits. Where the model ends in `L2Embedding`, |x| is
    1 and `scale` alone decides; then take a larger one, such as 16.

    Args:
        num_classes: number of classes; labels are ids from 0 up to it.
        embedding_size: dimensions of the embeddings.
        margin: what the angle is multiplied by, a whole number of at least 1; 1 is no margin.
        scale: of the logits, greater than 0.

    The other arguments are those of `PrototypeLoss`.

    Raises:
        TypeError: the margin or the scale is not a number.
        ValueError: fewer than two classes, a margin that is not a whole number, or scale <= 0.

    Reference:
        Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017,
        https://arxiv.org/abs/1704.08063

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import SphereFaceLoss
    >>> loss = SphereFaceLoss(num_classes=2, embedding_size=2)
    >>> _ = loss.trainable_variables[0].assign([[1, 0], [0, 1]])
    >>> x = np.array([[0.8, 0.6], [0, 2]], "float32")
    >>> value = loss(np.array([0, 1]), x)
    >>> print(f"{ops.convert_to_numpy(value):.4f}")
    0.8911
    """

    normalizes_examples = False

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 4.0,
        scale: float = 1.0,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "sphere_face_loss",
        dtype: Any = None,
        *,
        gather_across_devices: bool = True,
        shard_classes: bool = False,
    ) -> None:
        shared = block_size, reduction, name, dtype, gather_across_devices
        super().__init__(num_classes, embedding_size, *shared, shard_classes=shard_classes)
        self.margin = checks.number(margin, "margin", least=1.0)
        if not self.margin.is_integer():
            raise ValueError(
                "`margin` must be a whole number, which the angle is multiplied by. "
                f"Received: margin={margin!r}."
            )
        self.scale = checks.number(scale, "scale", above=0.0)

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return self.scale * similarity

    def _combined(self, own: Tensor, other: Tensor, x: Tensor, y: Tensor) -> Tensor:
        length = self._length(x, y)
        return softplus(other - self.scale * length * self._psi(divide(own, length)))

    def _length(self, x: Tensor, y: Tensor) -> Tensor:
        """What the cosine to the own class is multiplied by [n]."""
        return norms(x)

    def _psi(self, cosine: Tensor) -> Tensor:
        """psi as a function of cos(theta) [n], without the angle, whose slope has no bound."""
        turns, sign = ops.zeros_like(cosine), ops.ones_like(cosine)
        before, multiple = ops.ones_like(cosine), cosine  # cos(0 theta), cos(1 theta)
        for k in range(1, int(self.margin)):
            before, multiple = multiple, 2.0 * cosine * multiple - before
            past = ops.cast(cosine < math.cos(k * math.pi / self.margin), cosine.dtype)
            turns, sign = turns + past, sign * (1.0 - 2.0 * past)
        return sign * multiple - 2.0 * turns

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin, "scale": self.scale}


def norms(x: Tensor) -> Tensor:
    """Euclidean norm of each row [n]; 0, with zero gradient, of a zero row."""
    return ops.sum(x * unit_rows(x), axis=1)
