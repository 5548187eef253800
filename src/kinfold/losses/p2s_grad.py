"""P2SGrad: squares instead of a softmax, without margin or scale."""

from typing import Any

import keras
from keras import ops

from kinfold.core.checks import Tensor
from kinfold.core.numerics import unit_rows
from kinfold.losses.prototypes import PrototypeLoss


@keras.saving.register_keras_serializable("kinfold")
class P2SGradLoss(PrototypeLoss):
    """P2SGrad loss: cosines pulled to 1 for the own class and to 0 for the others.

    With s_c the cosine between an example and the prototype of class c, y its class, C the number
    of classes:

        ((1 - s_y)^2 + sum_{c != y} s_c^2) / C

    It has no margin and no scale to choose. The paper gives the gradient alone; that of this loss
    is the paper's times 2 / C.

    Args:
        num_classes: number of classes; labels are ids from 0 up to it.
        embedding_size: dimensions of the embeddings.

    The other arguments are those of `PrototypeLoss`.

    Raises:
        ValueError: fewer than two classes.

    Reference:
        Zhang et al., P2SGrad: Refined Gradients for Optimizing Deep Face Models, CVPR 2019,
        https://arxiv.org/abs/1905.02479

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import P2SGradLoss
    >>> loss = P2SGradLoss(num_classes=2, embedding_size=2)
    >>> _ = loss.trainable_variables[0].assign([[1, 0], [0, 1]])
    >>> x = np.array([[0.8, 0.6], [0, 1]], "float32")
    >>> value = loss(np.array([0, 1]), x)
    >>> print(f"{ops.convert_to_numpy(value):.4f}")
    0.1000
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "p2s_grad_loss",
        dtype: Any = None,
        *,
        gather_across_devices: bool = True,
        shard_classes: bool = False,
    ) -> None:
        shared = block_size, reduction, name, dtype, gather_across_devices
        super().__init__(num_classes, embedding_size, *shared, shard_classes=shard_classes)

    def _block(self, x: Tensor, prototypes: Tensor, y: Tensor, ids: Tensor) -> Any:
        """Squares [n, b], whose sum is the loss; and zeros, since the log-sum-exp is not used."""
        similarity = self.similarity(x, unit_rows(prototypes))
        own = ops.equal(ops.expand_dims(y, 1), ops.expand_dims(ids, 0))
        gap = similarity - ops.cast(own, similarity.dtype)
        return gap * gap, 0.0 * similarity

    def _combined(self, own: Tensor, other: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return own / self.num_classes
