"""SoftTriple: a softmax over classes that have several centers each."""

from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import unit_rows
from kinfold.losses.prototypes import PrototypeLoss, of_each_prototype
from kinfold.losses.trainable import current


@keras.saving.register_keras_serializable("kinfold")
class SoftTripleLoss(PrototypeLoss):
    """SoftTriple loss: a softmax over classes, softly by the nearest center of each.

    With q_ck the cosine between an example and center k of class c, y its class:

        s_c = sum_k softmax_k(q_ck / gamma) q_ck
        -log(exp(scale (s_y - margin)) / (exp(scale (s_y - margin)) + sum_{c != y} exp(scale s_c)))

    plus `regularization` times a sum over the pairs of centers w of one class, which draws
    unneeded centers together:

        sum_c sum_{k < l} sqrt(2 - 2 w_ck.w_cl + 1e-5) / (C K (K - 1))

    Args:
        num_classes: number of classes C; labels are ids from 0 up to it.
        embedding_size: dimensions of the embeddings.
        centers_per_class: K, at least 2.
        scale: of the logits, greater than 0.
        gamma: temperature of the softmax over centers, greater than 0.
        margin: taken off the similarity to the own class.
        regularization: weight of the second term, at least 0.
        reduction: see `PrototypeLoss`; the second term is part of each example's loss.

    The other arguments are those of `PrototypeLoss`.

    Raises:
        TypeError: a parameter is not a number.
        ValueError: fewer than two classes or centers, or a parameter out of range.

    Reference:
        Qian et al., SoftTriple Loss: Deep Metric Learning Without Triplet Sampling, ICCV 2019,
        https://arxiv.org/abs/1909.05235

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import SoftTripleLoss
    >>> loss = SoftTripleLoss(num_classes=2, embedding_size=2, centers_per_class=2, scale=4.0)
    >>> _ = loss.trainable_variables[0].assign([[[1, 0], [0, -1]], [[0, 1], [-1, 0]]])
    >>> x = np.array([[0.8, 0.6], [0, 1]], "float32")
    >>> value = loss(np.array([0, 1]), x)
    >>> print(f"{ops.convert_to_numpy(value):.4f}")
    0.3427
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        centers_per_class: int = 10,
        scale: float = 20.0,
        gamma: float = 0.1,
        margin: float = 0.01,
        regularization: float = 0.2,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "soft_triple_loss",
        dtype: Any = None,
        *,
        gather_across_devices: bool = True,
    ) -> None:
        centers = checks.count(centers_per_class, "centers_per_class", least=2)
        super().__init__(
            num_classes,
            embedding_size,
            block_size,
            reduction,
            name,
            dtype,
            gather_across_devices,
            prototypes_per_class=centers,
        )
        self.scale = checks.number(scale, "scale", above=0.0)
        self.gamma = checks.number(gamma, "gamma", above=0.0)
        self.margin = checks.number(margin, "margin")
        self.regularization = checks.number(regularization, "regularization", least=0.0)

    def similarity(self, x: Tensor, prototypes: Tensor) -> Tensor:
        each = of_each_prototype(x, prototypes)
        return ops.sum(ops.softmax(each / self.gamma, axis=1) * each, axis=1)

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return self.scale * (similarity - self.margin)

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return self.scale * similarity

    def _rows(self, y: Tensor, x: Tensor) -> Tensor:
        rows = super()._rows(y, x)
        return rows + self.regularization * self._spread() if self.regularization else rows

    def _spread(self) -> Tensor:
        centers = unit_rows(current(self.prototypes))
        k = self.prototypes_per_class
        cosine = centers @ ops.transpose(centers, (0, 2, 1))
        apart = ops.sqrt(ops.relu(2.0 - 2.0 * cosine) + 1e-5)
        pair = ops.cast(ops.triu(ops.ones((k, k)), k=1), apart.dtype)
        return ops.sum(apart * pair) / (self.num_classes * k * (k - 1.0))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "centers_per_class": self.prototypes_per_class,
            "scale": self.scale,
            "gamma": self.gamma,
            "margin": self.margin,
            "regularization": self.regularization,
        }
