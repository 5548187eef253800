"""Ranks of `torch.distributed`, and what they send each other.

Every function here is called by all ranks, in the same order.
"""

import contextlib
import functools
import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import distributed as dist

from kinfold.core.numerics import divide
from kinfold.core.torch_numerics import transformed


def ranks(x: torch.Tensor) -> "Ranks | None":
    """The ranks of the default process group; None for one alone, and while shapes are traced."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    if x.is_meta:
        return None
    if _in_a_fit_that_combines_nothing():
        raise NotImplementedError(
            f"`fit` of this Keras combines no gradients of the {dist.get_world_size()} processes "
            "of torch.distributed, so that each would train a model of its own. Take Keras 3.16 "
            "or newer, or a loop with DistributedDataParallel."
        )
    if transformed():
        raise NotImplementedError(
            "The transforms of torch.func cannot send rows between ranks. Use autograd, or "
            "gather_across_devices=False for the loss of this rank's rows."
        )
    return Ranks(dist.get_rank(), dist.get_world_size())


@functools.cache
def _step_without_ddp() -> Any:
    """The code of Keras's training step where it leaves gradients alone, before Keras 3.16."""
    from keras.src.backend.torch import trainer

    steps = (getattr(trainer, name, None) for name in ("TorchTrainer", "Trainer"))
    step = next(step for step in steps if step)
    return None if hasattr(step, "_initialize_ddp") else step.train_step.__code__


def fit_combines_gradients() -> bool:
    """Whether `fit` of this Keras combines the gradients of the ranks."""
    return _step_without_ddp() is None


def _in_a_fit_that_combines_nothing() -> bool:
    if (step := _step_without_ddp()) is None:
        return False
    frame = sys._getframe()
    while (frame := frame.f_back) is not None:  # type: ignore[assignment]
        if frame.f_code is step:
            return True
    return False


class Ranks(NamedTuple):
    """The ranks of a run, as one of them sees them."""

    rank: int
    size: int

    @torch.compiler.disable
    def meet(self, facts: dict[str, Any], *tensors: torch.Tensor) -> "list[Rows]":
        """Learn how many rows each rank has of each tensor.

        Args:
            facts: what must be the same on every rank.
            *tensors: [n, ...] on one device; the same one twice is asked for once.

        Raises:
            ValueError: the ranks disagree; the message says what two of them have.
        """
        digest = hashlib.blake2b(repr(facts).encode(), digest_size=7).digest()
        device, counts = tensors[0].device, [len(t) for t in tensors]
        own = [len(tensors), int.from_bytes(digest, "big"), *counts, *[0] * (4 - len(counts))]
        every = torch.tensor(own, device=device)
        every = _all_gather(every, self.size).reshape(self.size, -1).tolist()
        if any(other[:2] != own[:2] for other in every):
            self._disagree(facts)
        return [Rows(self, [other[2 + i] for other in every]) for i in range(len(tensors))]

    def _disagree(self, facts: dict[str, Any]) -> None:
        told: list[Any] = [None] * self.size
        dist.all_gather_object(told, facts)
        for rank, other in enumerate(told):
            for name in told[0]:
                if other.get(name) != told[0][name]:
                    raise ValueError(
                        f"The ranks of this run must agree on {name}. Rank 0 has "
                        f"{told[0][name]}, and rank {rank} has {other.get(name)}."
                    )

    def share(self, count: int) -> tuple[int, int]:
        """Where this rank's share of `count` things begins and ends."""
        return self.rank * count // self.size, (self.rank + 1) * count // self.size

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over the ranks, whose gradients are added up too."""
        return _Summed.apply(tensor)

    def reported(self, total: torch.Tensor, count: torch.Tensor | None) -> torch.Tensor:
        """Sum of `total` over the sum of `count`, scalars of each rank; 0 where that is 0.

        Without `count`, the sum of `total`.

        Its gradient is that of this rank's part of the sum, times the number of ranks.
        """
        if count is None:
            return _Reported.apply(total, _all_reduce(total.detach().clone()), self.size)
        both = torch.stack([total.detach(), count.detach().to(total.dtype)])
        both = _all_reduce(both)
        if count.requires_grad:
            count = _Summed.apply(count)
            return _Reported.apply(divide(total, count), divide(*both), self.size)
        return _Reported.apply(divide(total, both[1]), divide(*both), self.size)


class Rows(NamedTuple):
    """How the rows of a batch lie on the ranks, one rank's after the other's."""

    ranks: Ranks
    sizes: list[int]

    @property
    def first(self) -> int:
        """Position of this rank's first row in the whole batch."""
        return sum(self.sizes[: self.ranks.rank])

    def gathered(self, tensor: torch.Tensor) -> torch.Tensor:
        """The rows of all ranks [sum of sizes, ...]; a gradient returns to the rank it is of."""
        if not tensor.dtype.is_floating_point:
            return _gather(self, tensor)
        return _Gathered.apply(self, tensor)

    def each(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """`gathered` of those that there are."""
        return tuple(None if t is None else self.gathered(t) for t in tensors)

    def own(self, tensor: torch.Tensor) -> torch.Tensor:
        """This rank's rows of what is of all ranks."""
        return tensor[self.first : self.first + self.sizes[self.ranks.rank]]


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Rows, tensor: Any) -> Any:
        ctx.rows = rows
        return _gather(rows, tensor)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return None, _ToOwner.apply(ctx.rows, g)


class _ToOwner(torch.autograd.Function):
    """Of each rank's rows, the sum over what all ranks have of them."""

    @staticmethod
    def forward(ctx: Any, rows: Rows, tensor: Any) -> Any:
        ctx.rows = rows
        return _scatter(rows, tensor)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return None, _Gathered.apply(ctx.rows, g)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any) -> Any:
        return _all_reduce(value.clone())

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return _Summed.apply(g)


class _Reported(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Any, every: Any, size: int) -> Any:
        ctx.size = size
        return every.clone()

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * ctx.size, None, None


@torch.compiler.disable
def _gather(rows: Rows, tensor: torch.Tensor) -> torch.Tensor:
    sizes, sent = rows.sizes, tensor.detach().contiguous()
    if sent.dtype == torch.bool:
        sent = sent.to(torch.uint8)
    if (most := max(sizes)) > len(sent):
        sent = torch.cat([sent, sent.new_zeros(most - len(sent), *sent.shape[1:])])
    found = _all_gather(sent, len(sizes))
    if min(sizes) < most:
        parts = found.split(most)
        found = torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])
    return found.to(tensor.dtype)


@torch.compiler.disable
def _scatter(rows: Rows, tensor: torch.Tensor) -> torch.Tensor:
    sizes, rank = rows.sizes, rows.ranks.rank
    # A sum over ranks in half precision would round; 16 bits are sent as 32.
    wide = torch.promote_types(tensor.dtype, torch.float32)
    sent = tensor.detach().to(wide).contiguous()
    if (most := max(sizes)) > min(sizes):
        filled = sent.new_zeros(len(sizes), most, *sent.shape[1:])
        for part, n, own in zip(filled, sizes, sent.split(sizes), strict=True):
            part[:n] = own
        sent = filled.flatten(0, 1)
    found = sent.new_empty(most, *sent.shape[1:])
    _together(_collective("reduce_scatter_single", "reduce_scatter_tensor"), found, sent)
    return found[: sizes[rank]].to(tensor.dtype)


def _all_gather(tensor: torch.Tensor, size: int) -> torch.Tensor:
    found = tensor.new_empty(size * len(tensor), *tensor.shape[1:])
    _together(_collective("all_gather_single", "all_gather_into_tensor"), found, tensor)
    return found


@torch.compiler.disable
def _all_reduce(tensor: torch.Tensor) -> torch.Tensor:
    _together(dist.all_reduce, tensor)
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
