"""Manifold similarity loss."""

from typing import Any

import keras
from keras import ops

from kinfold import distributed
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import or_nan, rows_or_nan, unit_rows
from kinfold.losses.prototypes import PrototypeLoss
from kinfold.losses.trainable import current

MOST = 8192  # nodes of the graph: its inverse takes their number squared, four times over


@keras.saving.register_keras_serializable("kinfold")
class ManifoldLoss(PrototypeLoss):
    """Manifold similarity loss: an example closer to its proxy than to others, by random walks.

    With the cosine c, the graph of the examples and the proxies has the weights S = exp(2 relu(c)),
    0 from a node to itself, and W is S divided by the root of both nodes' sums of weights. A walk
    that goes on with probability alpha gives

        F = (1 - alpha) (I - alpha W)^-1

    With f_k the value of an example and proxy k in F, and y its own, the intrinsic loss is

        log(1 + sum_{k != y, f_k + margin >= f_y} exp(f_k - f_y + margin))

    and the context loss is the same of the cosines between their rows of F. The batch is one graph,
    whose inverse is computed whole: memory grows with the square of the batch, so one with more
    than 8,192 nodes is refused.

    Args:
        num_classes: number of proxies; labels are ids from 0 up to it, of classes, or of random
            groups where there are no classes.
        embedding_size: dimensions of the embeddings.
        context_weight: of the context loss, at least 0.
        intrinsic_weight: of the intrinsic loss, at least 0.
        alpha: how likely a walk goes on, above 0 and below 1.
        margin: by how much the own proxy must be closer.

    The other arguments are those of `PrototypeLoss`.

    Raises:
        TypeError: a parameter is not a number.
        ValueError: a parameter out of range, or a batch with too many nodes.
        NotImplementedError: several ranks, whose rows would be one graph.

    Reference:
        Aziere and Todorovic, Ensemble Deep Manifold Similarity Learning using Hard Proxies, CVPR
        2019

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import ManifoldLoss
    >>> loss = ManifoldLoss(num_classes=2, embedding_size=2)
    >>> _ = loss.trainable_variables[0].assign([[1, 0], [0, 1]])
    >>> x = np.array([[0.8, 0.6], [0, 1]], "float32")
    >>> value = loss(np.array([1, 1]), x)
    >>> print(f"{ops.convert_to_numpy(value):.4f}")
    0.3529
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        context_weight: float = 1.0,
        intrinsic_weight: float = 1.0,
        alpha: float = 0.8,
        margin: float = 5e-4,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "manifold_loss",
        dtype: Any = None,
        *,
        gather_across_devices: bool = True,
    ) -> None:
        super().__init__(
            num_classes, embedding_size, None, reduction, name, dtype, gather_across_devices
        )
        self.context_weight = checks.number(context_weight, "context_weight", least=0.0)
        self.intrinsic_weight = checks.number(intrinsic_weight, "intrinsic_weight", least=0.0)
        self.alpha = checks.number(alpha, "alpha", above=0.0)
        if self.alpha >= 1:
            raise ValueError(f"`alpha` must be below 1. Received: alpha={alpha}.")
        self.margin = checks.number(margin, "margin")

    def _rows(self, y: Tensor, x: Tensor) -> Tensor:
        distributed.refuse(self, x)
        proxies, n = current(self.prototypes), ops.shape(x)[0]
        if isinstance(n, int) and n + self.num_classes > MOST:
            raise ValueError(
                f"ManifoldLoss inverts a matrix of the batch and the proxies, {MOST:,} at most. "
                f"Received {n:,} embeddings and {self.num_classes:,} proxies; take a smaller batch."
            )
        walks = self._walks(ops.concatenate([x, unit_rows(ops.cast(proxies, x.dtype))]))
        rows = self._softmax(walks[:n, n:], y) * self.intrinsic_weight
        unit = unit_rows(walks)
        context = unit[:n] @ ops.transpose(unit[n:])
        rows = rows + self._softmax(context, y) * self.context_weight
        rows = or_nan(rows_or_nan(rows, x), proxies)
        return ops.where(self._known(y), rows, ops.full_like(rows, float("nan")))

    def _walks(self, nodes: Tensor) -> Tensor:
        """F, of nodes of unit norm."""
        one = ops.eye(ops.shape(nodes)[0], dtype=keras.backend.standardize_dtype(nodes.dtype))
        weights = ops.exp(2.0 * ops.relu(nodes @ ops.transpose(nodes))) * (1.0 - one)
        root = ops.rsqrt(ops.sum(weights, axis=1))
        between = weights * ops.expand_dims(root, 1) * ops.expand_dims(root, 0)
        return (1.0 - self.alpha) * ops.inv(one - self.alpha * between)

    def _softmax(self, similarity: Tensor, y: Tensor) -> Tensor:
        ids = ops.arange(self.num_classes, dtype=y.dtype)
        own = ops.equal(ops.expand_dims(y, 1), ops.expand_dims(ids, 0))
        zero = ops.zeros_like(similarity)
        gap = similarity - ops.sum(ops.where(own, similarity, zero), axis=1, keepdims=True)
        gap = gap + self.margin
        counts = ops.logical_and(ops.logical_not(own), gap >= 0)
        return ops.log1p(ops.sum(ops.where(counts, ops.exp(gap), zero), axis=1))

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "context_weight": self.context_weight,
            "intrinsic_weight": self.intrinsic_weight,
            "alpha": self.alpha,
            "margin": self.margin,
        }
        del config["block_size"]
        return config
