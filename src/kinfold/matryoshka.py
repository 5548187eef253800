"""MatryoshkaLoss: a pair loss of several lengths of the same embedding."""

from collections.abc import Sequence
from typing import Any

import keras

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import unit_rows
from kinfold.losses.base import PairLoss
from kinfold.streaming import Part, Problem


@keras.saving.register_keras_serializable("kinfold")
class MatryoshkaLoss(PairLoss):
    """A pair loss summed over prefixes of the embedding, each of which can then be searched with.

    With the first k numbers of an embedding as x[:k], for the sizes k and their weights w:

        sum_k w_k * loss(x[:k])

    Store the first 64 of 512 numbers where memory is short, and all of them where it is not: the
    model is trained once. Scale a shortened embedding to unit norm before you compare it.

    Args:
        loss: a `PairLoss`. One whose distance needs rows of unit norm must have `normalize=True`,
            as the prefix of such a row has a norm of its own.
        sizes: lengths of the prefixes, such as (64, 128, 512), in any order.
        weights: a weight for each size; None for 1 each.
        name: optional name of the loss.

    Raises:
        TypeError: the loss is not a `PairLoss`.
        ValueError: sizes that are not different whole numbers above 0, other weights than sizes, or
            a loss that needs `normalize=True`; when it is called, an embedding that is too short.

    Reference:
        Kusupati et al., Matryoshka Representation Learning, NeurIPS 2022,
        https://arxiv.org/abs/2205.13147

    Example:

    >>> import numpy as np
    >>> from kinfold import MatryoshkaLoss
    >>> from kinfold.losses import SupConLoss
    >>> x = np.array([[1, 0, 0, 2], [2, 1, 0, 0], [0, 1, 2, 0], [0, 3, 1, 0]], "float32")
    >>> y = np.array([0, 0, 1, 1])
    >>> loss = MatryoshkaLoss(SupConLoss(normalize=True), sizes=(2, 4))
    >>> alone = SupConLoss(normalize=True)
    >>> both = float(alone(y, x[:, :2])) + float(alone(y, x))
    >>> abs(float(loss(y, x)) - both) < 1e-6
    True
    """

    def __init__(
        self,
        loss: PairLoss,
        sizes: Sequence[int],
        weights: Sequence[float] | None = None,
        name: str | None = "matryoshka_loss",
    ) -> None:
        if not isinstance(loss, PairLoss):
            raise TypeError(f"`loss` must be a PairLoss. Received: loss={loss!r}.")
        if loss.distance.needs_unit_rows and not loss.normalize:
            raise ValueError(
                f"The {loss.distance.name} distance needs rows of unit norm, which prefixes are "
                f"not: make the loss with `normalize=True`. Received: loss={loss!r}."
            )
        super().__init__(
            loss.distance,
            loss.remove_diagonal,
            loss.normalize,
            loss.block_size,
            loss.reduction,
            name,
            loss.dtype,
            loss.gather_across_devices,
        )
        self.loss = loss
        self.sizes = tuple(checks.count(size, "sizes") for size in sizes)
        if not self.sizes or len(set(self.sizes)) < len(self.sizes):
            raise ValueError(f"`sizes` must be different lengths. Received: sizes={sizes!r}.")
        weights = [1.0] * len(self.sizes) if weights is None else weights
        self.weights = tuple(checks.number(weight, "weights") for weight in weights)
        if len(self.weights) != len(self.sizes):
            raise ValueError(
                f"`weights` must have one weight for each size. Received: {len(self.weights)} "
                f"weights and {len(self.sizes)} sizes."
            )
        self.takes_references = loss.takes_references

    def __call__(
        self,
        y_true: Any,
        y_pred: Any,
        sample_weight: Any = None,
        *,
        ref_embeddings: Any = None,
        memory: Part | None = None,
        **references: Any,
    ) -> Tensor:
        x = self._long_enough(y_pred, "y_pred")
        r = None if ref_embeddings is None else self._long_enough(ref_embeddings, "ref_embeddings")
        total: Any = 0.0
        for size, weight in zip(self.sizes, self.weights, strict=True):
            shortened = {
                "ref_embeddings": None if r is None else r[:, :size],
                "memory": None if memory is None else self._prefix(memory, size),
            }
            value = self.loss(y_true, x[:, :size], sample_weight, **shortened, **references)
            total = total + weight * value
        return total

    def _long_enough(self, value: Any, name: str) -> Tensor:
        x = checks.embeddings(value, name, self.dtype)
        if x.shape[1] is not None and x.shape[1] < max(self.sizes):
            raise ValueError(
                f"`{name}` must have embeddings of at least {max(self.sizes)} numbers, the largest "
                f"of `sizes`. Received shape {tuple(x.shape)}."
            )
        return x

    def _prefix(self, memory: Part, size: int) -> Part:
        """What is remembered, shortened; of unit norm if the loss normalises."""
        rows = memory.embeddings[:, :size]
        return memory._replace(embeddings=unit_rows(rows) if self.normalize else rows)

    def problem(self, *args: Any, **kwargs: Any) -> Problem:
        """What the whole embedding is compared with; see `kinfold.streaming.explain`."""
        return self.loss.problem(*args, **kwargs)

    def call(self, y_true: Any, y_pred: Any, *references: Any, **named: Any) -> Tensor:
        """Not used: the loss of each anchor comes with `reduction="none"`."""
        raise NotImplementedError("Make the loss with `reduction='none'` for that of each anchor.")

    def get_config(self) -> dict[str, Any]:
        return {
            "loss": keras.saving.serialize_keras_object(self.loss),
            "sizes": self.sizes,
            "weights": self.weights,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MatryoshkaLoss":
        loss = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**{**config, "loss": loss})
