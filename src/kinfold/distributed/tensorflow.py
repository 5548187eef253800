"""Replicas of `tf.distribute`, and what they send each other.

Every function here is called by all replicas, in the same order.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from kinfold.core.numerics import divide


def ranks(x: tf.Tensor) -> "Ranks | None":
    """The replicas in sync; None for one alone, and outside them, as while Keras builds a model."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return Ranks(context)


def share(value: tf.Tensor) -> tf.Tensor:
    """`value` over the number of replicas, whose losses and gradients are added up."""
    found = ranks(value)
    return value / found.context.num_replicas_in_sync if found else value


def check_variables(loss: Any) -> None:
    """Raise where replicas are to train variables of a loss that were made for one alone."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return
    if any(not hasattr(v.value, "values") for v in loss.trainable_variables):
        raise ValueError(
            f"The variables of {type(loss).__name__} were made outside the strategy that trains "
            "them. Make the loss, like the model, within `strategy.scope()`."
        )


def check_fit(model: Any) -> None:
    """Raise under a strategy for which the `fit` of Keras 3 is not made."""
    if isinstance(model.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
        raise NotImplementedError(
            "Keras 3 cannot `fit` under MultiWorkerMirroredStrategy, whatever the loss (Keras "
            "issue 20585). Use MirroredStrategy on one machine, or PyTorch or JAX on several."
        )


class Ranks(NamedTuple):
    """The replicas of a run, as one of them sees them."""

    context: Any

    def meet(self, facts: dict[str, Any], *tensors: tf.Tensor) -> "list[Rows]":
        """Learn how many rows each replica has of each tensor; `facts` come of one program."""
        sizes = self.context.all_gather(tf.stack([[tf.shape(t)[0] for t in tensors]]), 0)
        return [Rows(self, sizes[:, i]) for i in range(len(tensors))]

    def share(self, count: int) -> tuple[Any, Any]:
        """Where this replica's share of `count` things begins and ends."""
        rank, size = self.context.replica_id_in_sync_group, self.context.num_replicas_in_sync
        return rank * count // size, (rank + 1) * count // size

    @property
    def size(self) -> int:
        """The number of replicas."""
        return self.context.num_replicas_in_sync

    def summed(self, tensor: tf.Tensor) -> tf.Tensor:
        """Sum over the replicas, whose gradients are added up too."""
        return self.context.all_reduce(tf.distribute.ReduceOp.SUM, tensor)

    def reported(self, total: tf.Tensor, count: tf.Tensor | None) -> tf.Tensor:
        """This replica's share of sum of `total` over sum of `count`; 0 where that is 0.

        Without `count`, of the sum of `total`. All shares are equal, their sum is the value of the
        batch, and so are the sums of their gradients: as of the losses of Keras, whose `fit`
        reports a loss times the number of replicas.
        """
        size = self.context.num_replicas_in_sync
        every = self.context.all_reduce("sum", tf.stop_gradient(total))
        if count is not None:
            count = self.context.all_reduce("sum", tf.cast(count, total.dtype))
            total, every = divide(total, count), divide(every, count)

        @tf.custom_gradient
        def value(own: Any) -> Any:
            return every / size, lambda g: g

        return value(total)


class Rows(NamedTuple):
    """How the rows of a batch lie on the replicas, one replica's after the other's."""

    ranks: Ranks
    sizes: tf.Tensor

    @property
    def first(self) -> tf.Tensor:
        """Position of this replica's first row in the whole batch."""
        replica = self.ranks.context.replica_id_in_sync_group
        return tf.reduce_sum(tf.where(tf.range(tf.shape(self.sizes)[0]) < replica, self.sizes, 0))

    def gathered(self, tensor: tf.Tensor) -> tf.Tensor:
        """The rows of all replicas; a gradient returns to the replica it is of."""
        if tensor.dtype == tf.bool:
            return tf.cast(self.gathered(tf.cast(tensor, tf.int32)), tf.bool)
        found = self.ranks.context.all_gather(tensor, 0)
        return tf.ensure_shape(found, [None, *tensor.shape[1:]])

    def each(self, *tensors: tf.Tensor | None) -> tuple[tf.Tensor | None, ...]:
        """`gathered` of those that there are."""
        return tuple(None if t is None else self.gathered(t) for t in tensors)

    def own(self, tensor: tf.Tensor) -> tf.Tensor:
        """This replica's rows of what is of all replicas."""
        count = self.sizes[self.ranks.context.replica_id_in_sync_group]
        return tensor[self.first : self.first + count]
