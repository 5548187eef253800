"""PrototypeLoss: the base of losses that compare examples with a prototype of each class."""

from typing import Any

import keras
from keras import ops

from kinfold import distributed, streaming
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32, or_nan, rows_or_nan, softplus, unit_rows
from kinfold.losses.reduction import anchor_weights, reduced
from kinfold.losses.trainable import TrainableLoss, current
from kinfold.streaming import BlockSizeRule, forced


class PrototypeLoss(TrainableLoss):
    """A cross entropy over classes, by similarity to their prototypes, which it trains.

    With s_c the similarity of an example to class c, y its class:

        -log(exp(p(s_y)) / (exp(p(s_y)) + sum_{c != y} exp(n(s_c))))

    A subclass defines the logits p and n. Embeddings and prototypes are scaled to unit norm, unless
    it says otherwise. The classes are processed in blocks, so that no [batch, classes] matrix is
    held.

    Args:
        num_classes: number of classes; labels are ids from 0 up to it.
        embedding_size: dimensions of the embeddings.
        block_size: classes that are compared at once; None chooses. The result does not depend on
            it.
        reduction: as in Keras; "mean_with_sample_weight" divides by the weights.
        name: optional name of the loss.
        dtype: dtype that embeddings are taken in and losses returned in; None means
            `keras.config.floatx()`. Similarities, logits and sums are in float32 at least.
        gather_across_devices: see `PairLoss`.
        shard_classes: whether each rank of a distributed run holds and trains only the prototypes
            of its share of the classes, for more classes than fit on one device (PyTorch). Create
            the loss after the process group.
        prototypes_per_class: number of prototypes of each class.
    """

    # Whether they are scaled to unit norm before they are compared.
    normalizes_examples = True
    normalizes_prototypes = True

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        block_size: int | None,
        reduction: str | None,
        name: str | None,
        dtype: Any,
        gather_across_devices: bool = True,
        *,
        prototypes_per_class: int = 1,
        shard_classes: bool = False,
    ) -> None:
        super().__init__(checks.text(name, "name"), reduction, dtype)
        self.gather_across_devices = bool(gather_across_devices)
        self.num_classes = checks.count(num_classes, "num_classes", least=2)
        self.embedding_size = checks.count(embedding_size, "embedding_size")
        self.block_size = checks.block_size(block_size)
        self.prototypes_per_class = prototypes_per_class
        self.shard_classes = bool(shard_classes)
        self._shard = self._all = 0, self.num_classes
        if self.shard_classes:
            if not self.gather_across_devices:
                raise ValueError("shard_classes=True needs gather_across_devices=True.")
            self._shard = distributed.shard(self, self.num_classes)
        several = (prototypes_per_class,) if prototypes_per_class > 1 else ()
        self.prototypes = self._add_variable(
            "prototypes",
            (self._shard[1] - self._shard[0], *several, self.embedding_size),
            # Long: an optimizer of Adam's kind moves each number by the learning rate, whatever
            # the gradient, and would turn short ones about.
            keras.initializers.RandomNormal(stddev=1.0),
        )

    def positive_logit(self, similarity: Tensor) -> Tensor:
        """Logit of an example's own class, elementwise in the similarity to it."""
        raise NotImplementedError

    def negative_logit(self, similarity: Tensor) -> Tensor:
        """Logit of another class, elementwise in the similarity to it."""
        raise NotImplementedError

    def similarity(self, x: Tensor, prototypes: Tensor) -> Tensor:
        """Similarity of examples to classes.

        Args:
            x: floating [n, d], of unit norm if the loss normalizes examples.
            prototypes: floating [b, d] or [b, prototypes_per_class, d], of unit norm if the loss
                normalizes prototypes.

        Returns:
            Floating [n, b].
        """
        return x @ ops.transpose(prototypes)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """Compute the loss.

        Args:
            y_true: integer class ids [batch] or [batch, 1], from 0 to num_classes - 1. Another id
                raises an error; in a compiled step, which hides the ids, the loss is NaN.
            y_pred: embeddings [batch, embedding_size], of any norm.
            sample_weight: optional weight of each example, a scalar, [batch] or [batch, 1].

        Returns:
            A scalar, or [batch] where the reduction is "none" or None.

        Raises:
            TypeError: labels that are not integers.
            ValueError: ids of no class, wrong ranks, or counts that differ.
        """
        self._warn_if_untrained()
        with keras.name_scope(self.name):
            y, x = self._checked(y_true, y_pred)
            weights = anchor_weights(sample_weight, like=x[:, 0])
            if self.shard_classes:
                ranks = distributed.ranks(self, x)
                if self._shard != (ranks.share(self.num_classes) if ranks else self._all):
                    raise RuntimeError(
                        f"{type(self).__name__} with shard_classes=True holds the classes from "
                        f"{self._shard[0]} to {self._shard[1] - 1}, made for another number of "
                        "ranks. Make the loss when the process group is there."
                    )
                if ranks:
                    return ops.cast(self._of_shards(ranks, y, x, weights, y_pred), self.dtype)
            rows = self._rows(y, x)
            if self.reduction in (None, "none"):
                return ops.cast(rows * weights, self.dtype)
            counted = ops.ones_like(rows, dtype="bool")
            if ranks := distributed.ranks(self, x):
                ranks.meet(distributed.facts(self, y_pred, y), x)
            loss = reduced(ops.sum(rows * weights), counted, weights, self.reduction, ranks)
            return ops.cast(loss, self.dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """Return the loss of each example [batch], neither weighted nor reduced."""
        return ops.cast(self._rows(*self._checked(y_true, y_pred)), self.dtype)

    def _checked(self, y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
        forced.refuse_roads_of_pair_losses(self, "fused", "symmetric")
        y = checks.labels(y_true, "y_true")
        x = checks.embeddings(y_pred, "y_pred", self.dtype)
        checks.same_count(y, x, ("y_true", "y_pred"))
        checks.size(x, self.embedding_size, "y_pred", "embedding_size")
        checks.class_ids(y, self.num_classes, "y_true")
        x = at_least_float32(x)
        return y, unit_rows(x) if self.normalizes_examples else x

    def _rows(self, y: Tensor, x: Tensor) -> Tensor:
        prototypes, (own, other) = current(self.prototypes), self._own_and_other(y, x)
        rows = self._combined(own, other, x, y)
        rows = or_nan(rows_or_nan(rows, x), prototypes)
        return ops.where(self._known(y), rows, ops.full_like(rows, float("nan")))

    def _combined(self, own: Tensor, other: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Loss of each example [n], from its two results of `_own_and_other`."""
        return softplus(other - self.positive_logit(own))

    def _own_and_other(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Similarity to the own class [n], 0 if it is not here; log-sum-exp of the others [n]."""
        return streaming.sum_and_log_sum(
            self._block,
            x,
            current(self.prototypes),
            (y,),
            (ops.arange(*self._shard, dtype=y.dtype),),
            BlockSizeRule(self.block_size, self.prototypes_per_class),
        )

    def _of_shards(self, ranks: Any, y: Tensor, x: Tensor, weights: Tensor, y_pred: Any) -> Tensor:
        """The loss where each rank has some of the classes: of the examples of all ranks."""
        if self.reduction in (None, "none"):
            raise NotImplementedError(
                f"{type(self).__name__} with shard_classes=True needs a reduction, because each "
                "rank has a part of the loss of every example. Received: reduction=None."
            )
        rows = ranks.meet(distributed.facts(self, y_pred, y), x)[0]
        y, weights, x = rows.each(y, weights, ranks.averaged(x))
        own, other = self._own_and_other(y, x)
        own, other = ranks.added(own), ranks.log_added(other)
        loss = rows_or_nan(self._combined(own, other, ranks.shared(x), y), x)
        loss = ops.where(self._known(y), loss, ops.full_like(loss, float("nan")))
        counted = ops.ones_like(loss, dtype="bool")
        return reduced(ops.sum(loss * weights), counted, weights, self.reduction)

    def _known(self, y: Tensor) -> Tensor:
        """Which ids are those of a class, boolean [n]."""
        return ops.logical_and(y >= 0, y < self.num_classes)

    def _block(self, x: Tensor, prototypes: Tensor, y: Tensor, ids: Tensor) -> Any:
        """Similarities to the own class, 0 for others [n, b]; logits of the others, else -inf."""
        if self.normalizes_prototypes:
            prototypes = unit_rows(prototypes)
        similarity = self.similarity(x, prototypes)
        own = ops.equal(ops.expand_dims(y, 1), ops.expand_dims(ids, 0))
        logit = ops.where(own, -float("inf"), self.negative_logit(similarity))
        return ops.where(own, similarity, 0.0), logit

    def get_config(self) -> dict[str, Any]:
        return {
            "num_classes": self.num_classes,
            "embedding_size": self.embedding_size,
            "block_size": self.block_size,
            "reduction": self.reduction,
            "name": self.name,
            "dtype": self.dtype,
            "gather_across_devices": self.gather_across_devices,
            **({"shard_classes": True} if self.shard_classes else {}),
        }


def of_each_prototype(x: Tensor, prototypes: Tensor) -> Tensor:
    """Dot products [n, k, b] of examples [n, d] with the prototypes [b, k, d] of classes."""
    _, several, d = prototypes.shape
    by_rank = ops.reshape(ops.transpose(prototypes, (1, 0, 2)), (-1, d))
    every = x @ ops.transpose(by_rank)
    # Classes last, so that what is taken over a class's prototypes runs along rows of memory.
    return ops.reshape(every, (ops.shape(x)[0], several, ops.shape(prototypes)[0]))
