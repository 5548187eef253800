"""Large-margin softmax: a margin that multiplies the angle, with prototypes of any norm."""

from typing import Any

import keras
from keras import ops

from kinfold.core.checks import Tensor
from kinfold.losses.sphere_face import SphereFaceLoss, norms
from kinfold.losses.trainable import current


@keras.saving.register_keras_serializable("kinfold")
class LargeMarginSoftmaxLoss(SphereFaceLoss):
    """Large-margin softmax loss: SphereFace with prototypes of any norm.

    With |x| the norm of an example, |w_c| that of the prototype of class c, theta_c the angle
    between the two, y its class and m the margin:

        -log(exp(scale |x| |w_y| psi(theta_y)) / (exp(scale |x| |w_y| psi(theta_y))
             + sum_{c != y} exp(scale |x| |w_c| cos(theta_c))))

        psi(theta) = (-1)^k cos(m theta) - 2 k   for theta from k pi / m to (k + 1) pi / m

    Neither examples nor prototypes are scaled to unit norm.

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
        Liu et al., Large-Margin Softmax Loss for Convolutional Neural Networks, ICML 2016,
        https://arxiv.org/abs/1612.02295

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import LargeMarginSoftmaxLoss
    >>> loss = LargeMarginSoftmaxLoss(num_classes=2, embedding_size=2)
    >>> _ = loss.trainable_variables[0].assign([[2, 0], [0, 1]])
    >>> x = np.array([[0.8, 0.6], [0, 2]], "float32")
    >>> value = loss(np.array([0, 1]), x)
    >>> print(f"{ops.convert_to_numpy(value):.4f}")
    1.2551
    """

    normalizes_prototypes = False

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 4.0,
        scale: float = 1.0,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "large_margin_softmax_loss",
        dtype: Any = None,
        *,
        gather_across_devices: bool = True,
    ) -> None:
        shared = block_size, reduction, name, dtype
        super().__init__(
            num_classes,
            embedding_size,
            margin,
            scale,
            *shared,
            gather_across_devices=gather_across_devices,
        )

    def _length(self, x: Tensor, y: Tensor) -> Tensor:
        ids = ops.where(self._known(y), y, ops.zeros_like(y))
        own = ops.take(current(self.prototypes), ids, axis=0)
        return super()._length(x, y) * norms(own)
