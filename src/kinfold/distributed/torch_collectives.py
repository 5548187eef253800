"""What ranks of `torch.distributed` send each other, and which one ended where none answers."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import distributed as dist


@torch.compiler.disable
def gather(sizes: list[int], tensor: torch.Tensor) -> torch.Tensor:
    """The rows of all ranks [sum of sizes, ...]."""
    sent = tensor.detach().contiguous()
    if sent.dtype == torch.bool:
        sent = sent.to(torch.uint8)
    if (most := max(sizes)) > len(sent):
        sent = torch.cat([sent, sent.new_zeros(most - len(sent), *sent.shape[1:])])
    found = all_gather(sent, len(sizes))
    if min(sizes) < most:
        parts = found.split(most)
        found = torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])
    return found.to(tensor.dtype)


@torch.compiler.disable
def scatter(sizes: list[int], rank: int, tensor: torch.Tensor) -> torch.Tensor:
    """Of a rank's own rows, the sum over what all ranks have of them."""
    own = sizes[rank]
    # Not a reduce-scatter, for which gloo sends twice as much; and sums of half precision round.
    found = tensor.new_empty(len(sizes) * own, *tensor.shape[1:])
    sent = tensor.detach().contiguous()
    _together(
        lambda found, sent: dist.all_to_all_single(found, sent, [own] * len(sizes), sizes),
        *(found, sent),
    )
    parts = found.reshape(len(sizes), own, *tensor.shape[1:])
    wide = torch.promote_types(tensor.dtype, torch.float32)
    return parts.sum(0, dtype=wide).to(tensor.dtype)


def all_gather(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """Equally many rows of each rank."""
    found = tensor.new_empty(size * len(tensor), *tensor.shape[1:])
    _together(_collective("all_gather_single", "all_gather_into_tensor"), found, tensor)
    return found


@torch.compiler.disable
def all_reduce(tensor: torch.Tensor, how: str = "SUM") -> torch.Tensor:
    """The sum over ranks, or what `how` says, in place."""
    # Looked up here: a PyTorch built without `distributed` must load this module too.
    _together(lambda tensor: dist.all_reduce(tensor, getattr(dist.ReduceOp, how)), tensor)
    return tensor


class LostRankError(RuntimeError):
    """A rank ended in the middle of a step."""


def _together(collective: Callable[..., Any], *tensors: torch.Tensor) -> None:
    try:
        collective(*tensors)
    except RuntimeError as error:  # of gloo; NCCL ends the process
        raise _lost(_silent(), error) from error


@contextlib.contextmanager
def lost_ranks_told() -> Iterator[None]:
    """Name the ranks that have ended where PyTorch's own collectives fail."""
    try:
        yield
    except LostRankError:
        raise
    except RuntimeError as error:
        if not (gone := _silent()):
            raise
        raise _lost(gone, error) from error


def _lost(gone: list[str], error: Exception) -> LostRankError:
    who = f"Rank{'s' * (len(gone) > 1)} {', '.join(gone)}" if gone else "Another rank"
    return LostRankError(
        f"{who} no longer answer{'s' * (len(gone) < 2)}, so this step cannot be finished. See "
        f"what that process wrote, and resume from the last checkpoint. ({error})"
    )


def _silent(wait: float = 3.0) -> list[str]:
    """The ranks that do not say within `wait` seconds that they are still there."""
    store, found = dist.distributed_c10d._get_default_store(), []
    try:
        store.set(f"kinfold/there/{dist.get_rank()}", "1")
        end = time.monotonic() + wait
        for rank in range(dist.get_world_size()):
            while not (there := store.check([f"kinfold/there/{rank}"])):
                if time.monotonic() > end:
                    break
                time.sleep(0.05)
            found += [] if there else [str(rank)]
    except RuntimeError:  # the store was kept by a process that is gone
        return []
    return found


def _collective(name: str, before: str) -> Callable[..., Any]:
    """A collective of `torch.distributed` by its name, or by the one of PyTorch before 2.13."""
    return getattr(dist, name, None) or getattr(dist, before)
