"""Ranks of `torch.distributed`, and what they send each other.

Every function here is called by all ranks, in the same order.
"""

import functools
import hashlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import distributed as dist

from kinfold.core.numerics import divide
from kinfold.core.torch_numerics import refuse_again, transformed
from kinfold.distributed import processes


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


def shard(count: int) -> tuple[int, int]:
    """Where this rank's share of `count` things begins and ends; all for a process alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, count
    return Ranks(dist.get_rank(), dist.get_world_size()).share(count)


def keep_apart(model: torch.nn.Module, variables: list[Any]) -> None:
    """Let DistributedDataParallel neither broadcast nor average what a rank has for itself."""
    own = {id(variable.value) for variable in variables}
    names = [name for name, value in model.named_parameters() if id(value) in own]
    ignored = getattr(model, "_ddp_params_and_buffers_to_ignore", [])
    torch.nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
        model, [*ignored, *names]
    )


@functools.cache
def _step_without_ddp() -> Any:
    """The code of Keras's training step where it leaves gradients alone, before Keras 3.16."""
    from keras.src.backend.torch import trainer

    steps = (getattr(trainer, name, None) for name in ("TorchTrainer", "Trainer"))
    step = next(step for step in steps if step)
    return None if hasattr(step, "_initialize_ddp") else step.train_step.__code__


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
            told: list[Any] = [None] * self.size
            dist.all_gather_object(told, facts)
            processes.refuse_different(told)
        return [Rows(self, [other[2 + i] for other in every]) for i in range(len(tensors))]

    def share(self, count: int) -> tuple[int, int]:
        """Where this rank's share of `count` things begins and ends."""
        return self.rank * count // self.size, (self.rank + 1) * count // self.size

    def averaged(self, x: torch.Tensor) -> torch.Tensor:
        """`x`, whose gradient the mean over ranks will divide by their number."""
        return _Reported.apply(x, x, self.size)

    def added(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over ranks [n], alike on each, of which each has the gradient of its part."""
        return _Reported.apply(value, _all_reduce(value.detach().clone()), 1)

    def log_added(self, value: torch.Tensor) -> torch.Tensor:
        """As `added`, log(sum over ranks of exp(value)) [n]."""
        return _LogAdded.apply(value)

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


class _LogAdded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any) -> Any:
        largest = _all_reduce(value.clone(), dist.ReduceOp.MAX)
        largest = largest.masked_fill(largest == -torch.inf, 0.0)
        every = _all_reduce((value - largest).exp()).log() + largest
        ctx.save_for_backward(value, every)
        return every

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        refuse_again("classes that are sharded over ranks")
        value, every = ctx.saved_tensors
        return g * (value - every).exp().masked_fill(value == -torch.inf, 0.0)


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
    sizes = rows.sizes
    own = sizes[rows.ranks.rank]
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


def _all_gather(tensor: torch.Tensor, size: int) -> torch.Tensor:
    found = tensor.new_empty(size * len(tensor), *tensor.shape[1:])
    _together(_collective("all_gather_single", "all_gather_into_tensor"), found, tensor)
    return found


@torch.compiler.disable
def _all_reduce(tensor: torch.Tensor, how: Any = dist.ReduceOp.SUM) -> torch.Tensor:
    _together(lambda tensor: dist.all_reduce(tensor, how), tensor)
    return tensor


def _together(collective: Callable[..., Any], *tensors: torch.Tensor) -> None:
    try:
        collective(*tensors)
    except RuntimeError as error:  # of gloo; NCCL ends the process
        gone = _silent()
        who = f"Rank{'s' * (len(gone) > 1)} {', '.join(gone)}" if gone else "Another rank"
        raise RuntimeError(
            f"{who} no longer answer{'s' * (len(gone) < 2)}, so this step cannot be finished. See "
            f"what that process wrote, and resume from the last checkpoint. ({error})"
        ) from error


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
