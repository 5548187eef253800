"""A memory of earlier batches, as pytorch-metric-learning has it."""

from typing import Any

import numpy as np
from keras import ops

from kinfold.compat.pytorch_metric_learning import tuples
from kinfold.compat.pytorch_metric_learning.calls import Call, Loss, Module
from kinfold.compat.pytorch_metric_learning.own import BaseLossWrapper
from kinfold.core import checks
from kinfold.core.checks import Tensor


class CrossBatchMemory(BaseLossWrapper):
    """A loss of a batch with all that the memory holds, to which the batch is added first.

    As there, what is in the memory has no gradient, the batch at hand too: a pair within it counts
    for its anchor alone. `kinfold.CrossBatchMemory` has the gradient of both ends, and works in
    compiled steps.

    Args:
        loss: one of `supported_losses`.
        embedding_size: d.
        memory_size: how many embeddings are kept.
        miner: what chooses among the pairs of the batch with the memory; None for all.
    """

    embedding_memory: Any
    label_memory: Any

    def __init__(
        self, loss: Any, embedding_size: int, memory_size: int = 1024, miner: Any = None
    ) -> None:
        super().__init__(loss)
        self.loss, self.miner = loss, miner
        self.embedding_size = checks.count(embedding_size, "embedding_size")
        self.memory_size = checks.count(memory_size, "memory_size")
        self.reset_queue()

    @staticmethod
    def supported_losses() -> list[str]:
        """The names of the losses that it takes."""
        return [
            *("AngularLoss", "CircleLoss", "ContrastiveLoss", "GeneralizedLiftedStructureLoss"),
            *("IntraPairVarianceLoss", "LiftedStructureLoss", "MarginLoss", "MultiSimilarityLoss"),
            *("NCALoss", "NTXentLoss", "SignalToNoiseRatioContrastiveLoss", "SupConLoss"),
            *("TripletMarginLoss", "TupletMarginLoss"),
        ]

    def reset_queue(self) -> None:
        """Forget everything."""
        memory = ops.zeros((self.memory_size, self.embedding_size))
        labels = ops.zeros((self.memory_size,), dtype=checks.label_dtype())
        for name, value in (("embedding_memory", memory), ("label_memory", labels)):
            if Module is object:
                setattr(self, name, value)
            else:
                self.register_buffer(name, value)
        self.has_been_filled = False
        self.queue_idx = 0

    def forward(
        self, embeddings: Any, labels: Any, indices_tuple: Any = None, enqueue_mask: Any = None
    ) -> Tensor:
        """Add the batch to the memory, and compute the loss.

        Args:
            embeddings: [batch, d].
            labels: integer class ids [batch].
            indices_tuple: pairs or triplets besides the others; as there, positions of positives
                and negatives are those in the memory.
            enqueue_mask: boolean [batch]: what is added to the memory, and is no anchor; the others
                are anchors, and are not added. None for all as both.
        """
        if indices_tuple is not None and enqueue_mask is not None:
            raise ValueError("Pass `indices_tuple` or `enqueue_mask`, not both.")
        x = checks.embeddings(embeddings, "embeddings", checks.compute_dtype(embeddings))
        checks.size(x, self.embedding_size, "embeddings", "embedding_size")
        y = checks.labels(labels, "labels")
        checks.same_count(y, x, ("labels", "embeddings"))
        if not checks.is_concrete(x):
            raise NotImplementedError(
                "This memory writes down what it sees, which a compiled step and the transforms "
                "of JAX do not allow. Take kinfold.CrossBatchMemory."
            )
        new = None
        if enqueue_mask is not None:
            mask = tuples.known(enqueue_mask, "enqueue_mask").astype(bool).reshape(-1)
            if len(mask) != x.shape[0]:
                raise ValueError(
                    f"`enqueue_mask` must have one entry for each embedding, {x.shape[0]}. "
                    f"Received {len(mask)}."
                )
            new, anchors = np.flatnonzero(mask), np.flatnonzero(~mask)
        added = (x, y) if new is None else (ops.take(x, new, axis=0), ops.take(y, new, axis=0))
        if added[0].shape[0] > self.memory_size:
            raise ValueError(
                f"A batch must fit into the memory of {self.memory_size}. Received "
                f"{added[0].shape[0]} embeddings."
            )
        self.add_to_memory(*added, added[0].shape[0])
        if new is not None:
            x, y = (ops.take(part, anchors, axis=0) for part in (x, y))
        filled = self.memory_size if self.has_been_filled else self.queue_idx
        memory = self.embedding_memory[:filled], self.label_memory[:filled]
        of_pairs = isinstance(self.loss, Loss) and self.loss.by_pairs
        if self.miner is None and indices_tuple is None and new is None and of_pairs:
            return self._streamed(x, y, *memory)
        at = self.create_indices_tuple(x, y, *memory, indices_tuple, new is None)
        return self.loss(x, y, at, *memory)

    if Module is object:
        __call__ = forward

    def create_indices_tuple(
        self,
        embeddings: Tensor,
        labels: Tensor,
        E_mem: Tensor,
        L_mem: Tensor,
        input_indices_tuple: Any,
        do_remove_self_comparisons: bool,
    ) -> tuple[Tensor, ...]:
        """The pairs or triplets of a batch with the memory, and others that are given."""
        n, filled = len(labels), len(L_mem)
        if self.miner is not None:
            found = self.miner(embeddings, labels, E_mem, L_mem)
            chosen = tuples.checked(found, n, filled)
        else:
            chosen = tuples.all_pairs(labels, L_mem)
        if do_remove_self_comparisons:
            chosen = tuples.without_own(chosen, self._at)
        if input_indices_tuple is not None:
            given = tuples.checked(input_indices_tuple, n, filled)
            as_it: Any = tuples.triplets_of if len(chosen) == 3 else tuples.pairs_of
            chosen = type(chosen)(*map(np.concatenate, zip(chosen, as_it(given), strict=True)))
        return tuple(ops.convert_to_tensor(part, dtype="int32") for part in chosen)

    def _streamed(self, x: Tensor, y: Tensor, memory: Tensor, labels: Tensor) -> Tensor:
        """The loss of all pairs: references begin with the batch, so that its own pairs go."""
        others = np.setdiff1d(np.arange(memory.shape[0]), self._at)
        order = np.concatenate([self._at, others])
        r, of_references = (ops.take(part, order, axis=0) for part in (memory, labels))
        call = Call(x, y, None, r, of_references)
        call.same_labels = True
        return self.loss.of(call, x)

    def add_to_memory(self, embeddings: Any, labels: Any, batch_size: int) -> None:
        """Write a batch over the oldest."""
        self._at = (self.queue_idx + np.arange(batch_size)) % self.memory_size
        at = ops.convert_to_tensor(self._at, dtype="int32")
        self.curr_batch_idx = at
        old = ops.cast(self.embedding_memory, embeddings.dtype)
        self.embedding_memory = _written(old, at, ops.stop_gradient(embeddings))
        old = ops.cast(self.label_memory, labels.dtype)
        self.label_memory = _written(old, at, ops.convert_to_tensor(labels))
        before, self.queue_idx = self.queue_idx, (self.queue_idx + batch_size) % self.memory_size
        if batch_size and self.queue_idx <= before:
            self.has_been_filled = True


def _written(old: Tensor, at: Tensor, rows: Tensor) -> Tensor:
    return ops.scatter_update(old, ops.expand_dims(at, 1), rows)
