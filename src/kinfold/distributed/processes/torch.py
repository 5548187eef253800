"""The ranks of `torch.distributed`, which share the reading of data and the work of measuring.

Every function here but `rank_and_size` is called by all ranks, in the same order.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import torch
from torch import distributed as dist

from kinfold.distributed.torch import Ranks


def rank_and_size() -> tuple[int, int]:
    """The rank in the default process group, and the number of its ranks."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def all_said(said: bytes) -> list[bytes]:
    """What each rank says."""
    told: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(told, said)
    return told


def gathered(rows: np.ndarray, facts: dict[str, Any]) -> np.ndarray:
    """The rows of all ranks, one rank's after the other's; `facts` must be the same on all."""
    sent = keras.ops.convert_to_tensor(rows)
    (lie,) = Ranks(*rank_and_size()).meet(facts, sent)
    return keras.ops.convert_to_numpy(lie.gathered(sent))


@contextlib.contextmanager
def values_of_rank_0(model: Any) -> Iterator[None]:
    """Give a model the values of rank 0 for a while, where they are not the same on every rank.

    Such are the averages of batch normalisation, which each rank takes of its own rows. The model
    that is measured is then the one that rank 0 would save.
    """
    from torch.distributed.tensor import DTensor  # takes long to load

    # What DistributedDataParallel leaves alone is a rank's own, such as its share of prototypes.
    # So is a DTensor: FSDP puts it together from all ranks when the model is called.
    ignored = set(getattr(model, "_ddp_params_and_buffers_to_ignore", ()))
    own_of_rank = {id(value) for name, value in model.named_parameters() if name in ignored}
    every = [*(variable.value for variable in model.variables), *model.buffers()]
    tensors = [
        value.detach()
        for value in every
        if id(value) not in own_of_rank and not isinstance(value, DTensor)
    ]
    different = [tensors[i] for i in _different([_sum_of_bits(tensor) for tensor in tensors])]
    own = [tensor.clone() for tensor in different]
    for tensor in different:
        sent = tensor.contiguous()
        dist.broadcast(sent, 0)
        tensor.copy_(sent)
    try:
        yield
    finally:
        for tensor, value in zip(different, own, strict=True):
            tensor.copy_(value)


def _different(sums: list[torch.Tensor]) -> list[int]:
    """Where the numbers are not the same on all ranks."""
    if not sums:
        return []
    own = torch.stack(sums)
    extremes = torch.stack([own, ~own])  # of which the largest is ~ of the smallest
    dist.all_reduce(extremes, dist.ReduceOp.MAX)
    return torch.nonzero(extremes[0] != ~extremes[1])[:, 0].tolist()


def _sum_of_bits(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of the bits of a tensor, read as integers: other bits, almost surely another sum."""
    if tensor.dtype == torch.bool:
        return tensor.sum()
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.contiguous().view(whole).sum(dtype=torch.int64)
