"""`pytorch_metric_learning.utils.distributed`: losses and miners of the batch of all processes.

Losses are of that batch already: see `kinfold.distributed`. Here are the peer's names, and what is
left: a miner that looks at the embeddings of all processes, and a loss of what it chose.
"""

from typing import Any

import numpy as np
from keras import ops

from kinfold.compat.pytorch_metric_learning import call, calls, tuples
from kinfold.compat.pytorch_metric_learning.calls import Module
from kinfold.compat.pytorch_metric_learning.memory import CrossBatchMemory
from kinfold.compat.pytorch_metric_learning.mining import BaseMiner
from kinfold.compat.pytorch_metric_learning.own import BaseMetricLossFunction
from kinfold.compat.pytorch_metric_learning.weights import WithWeights


class DistributedLossWrapper(Module):
    """A loss of the batch of all processes of `torch.distributed`.

    A loss of pairs or with weights is handed on: it is of that batch by itself, each process
    computes its own anchors, and gradients reach the embeddings of all. A memory, a loss of one's
    own and one with `indices_tuple` get the embeddings of all processes, those of this one first,
    as there. Every process returns the loss itself; its gradient carries the number of processes,
    which the mean of DistributedDataParallel takes out. The peer returns the loss times it.

    Args:
        loss: one of `losses`, but MultipleLosses and SelfSupervisedLoss.
        efficient: whether `indices_tuple` has anchors of this process alone, as a miner that is
            wrapped in the same way gives them. Without it, it makes no difference.
    """

    def __init__(self, loss: Any, efficient: bool = False) -> None:
        super().__init__()
        kinds = (calls.Loss, WithWeights, BaseMetricLossFunction, CrossBatchMemory)
        if not isinstance(loss, kinds):
            raise TypeError(f"`loss` must be one of `losses`. Received: loss={loss!r}.")
        if efficient and isinstance(loss, CrossBatchMemory):
            raise ValueError("CrossBatchMemory takes no efficient=True.")
        self.loss: Any = loss
        self.efficient = bool(efficient)

    def forward(
        self,
        embeddings: Any,
        labels: Any = None,
        indices_tuple: Any = None,
        ref_emb: Any = None,
        ref_labels: Any = None,
        enqueue_mask: Any = None,
    ) -> Any:
        """Compute the loss; `enqueue_mask` is for a memory."""
        memory = isinstance(self.loss, CrossBatchMemory)
        if memory and (ref_emb is not None or ref_labels is not None):
            raise ValueError("CrossBatchMemory takes no ref_emb and ref_labels.")
        if enqueue_mask is not None and not memory:
            raise ValueError(f"{type(self.loss).__name__} takes no enqueue_mask.")
        size = processes()
        if memory:
            if size > 1:
                embeddings, labels = gathered(embeddings), gathered(labels)
                enqueue_mask = gathered(enqueue_mask)
            with call.local():
                value = self.loss(embeddings, labels, indices_tuple, enqueue_mask)
            return _times(value, size)
        by_itself = indices_tuple is None and not isinstance(self.loss, BaseMetricLossFunction)
        if size <= 1 or by_itself:
            return self.loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        if isinstance(self.loss, WithWeights):
            raise NotImplementedError(
                f"{type(self.loss).__name__} of several processes takes no indices_tuple."
            )
        x, y, r, of_references = map(gathered, (embeddings, labels, ref_emb, ref_labels))
        if self.efficient:
            r, of_references = (x, y) if ref_emb is None else (r, of_references)
            x, y = embeddings, labels
            if indices_tuple is None:
                indices_tuple = _without_own(tuples.all_pairs(y, of_references), len(y))
        with call.local():
            value = self.loss(x, y, indices_tuple, r, of_references)
        return _times(value, size)

    if Module is object:
        __call__ = forward


class DistributedMinerWrapper(Module):
    """A miner that looks at the embeddings of all processes of `torch.distributed`.

    What it chooses are positions in the batch of all, this process first: for a loss in a
    `DistributedLossWrapper`.

    Args:
        miner: one of `miners`.
        efficient: whether it chooses for the anchors of this process alone.
    """

    def __init__(self, miner: Any, efficient: bool = False) -> None:
        super().__init__()
        if not isinstance(miner, BaseMiner):
            raise TypeError(f"`miner` must be one of `miners`. Received: miner={miner!r}.")
        self.miner, self.efficient = miner, bool(efficient)

    def forward(self, emb: Any, labels: Any, ref_emb: Any = None, ref_labels: Any = None) -> Any:
        """Choose pairs or triplets; see `miners`."""
        if processes() <= 1:
            return self.miner(emb, labels, ref_emb, ref_labels)
        x, y, r, of_references = map(gathered, (emb, labels, ref_emb, ref_labels))
        if not self.efficient:
            return self.miner(x, y, r, of_references)
        r, of_references = (x, y) if ref_emb is None else (r, of_references)
        found = self.miner(emb, labels, r, of_references)
        chosen = tuples.checked(found, len(labels), len(of_references))
        return _without_own(chosen, len(labels)) if ref_emb is None else _tensors(chosen)

    if Module is object:
        __call__ = forward


def processes() -> int:
    """The number of processes of `torch.distributed`; 1 on other backends."""
    if Module is object:
        return 1
    from torch import distributed

    there = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if there else 1


def gathered(rows: Any) -> Any:
    """The rows of all processes, those of this one first, with gradient to these alone."""
    if rows is None:
        return None
    import torch
    from torch import distributed

    own = torch.as_tensor(rows)
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, own.detach().contiguous())
    parts.pop(distributed.get_rank())
    return torch.cat([own, *parts])


def _without_own(chosen: Any, number: int) -> Any:
    return _tensors(tuples.without_own(chosen, np.arange(number)))


def _tensors(chosen: Any) -> Any:
    return tuple(ops.convert_to_tensor(part, dtype="int32") for part in chosen)


def _times(value: Any, size: int) -> Any:
    """A loss whose gradient is multiplied by the number of processes."""
    return value if size == 1 else value + (size - 1) * (value - ops.stop_gradient(value))
