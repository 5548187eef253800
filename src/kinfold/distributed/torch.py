"""Ranks of `torch.distributed`, and what they send each other.

Every function here is called by all ranks, in the same order.
"""

import functools
import hashlib
import sys
from typing import Any, NamedTuple

import torch
from torch import distributed as dist

from kinfold.core.numerics import divide
from kinfold.core.torch_numerics import refuse_again, transformed
from kinfold.distributed import processes
from kinfold.distributed import torch_collectives as collectives


def ranks(x: torch.Tensor) -> "Ranks | None":
    """The ranks of the default process group; None for one alone, and while shapes are traced."""
    rank, size = processes.rank_and_size()
    if size == 1 or x.is_meta:
        return None
    if _in_a_fit_that_combines_nothing():
        raise NotImplementedError(
            f"`fit` of this Keras combines no gradients of the {size} processes "
            "of torch.distributed, so that each would train a model of its own. Take Keras 3.16 "
            "or newer, or a loop with DistributedDataParallel."
        )
    if transformed():
        raise NotImplementedError(
            "The transforms of torch.func cannot send rows between ranks. Use autograd, or "
            "gather_across_devices=False for the loss of this rank's rows."
        )
    return Ranks(rank, size)


def shard(count: int) -> tuple[int, int]:
    """Where this rank's share of `count` things begins and ends; all for a process alone."""
    return Ranks(*processes.rank_and_size()).share(count)


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
            *tensors: [n, ...] on one device, four at most.

        Raises:
            ValueError: the ranks disagree; the message says what two of them have.
        """
        digest = hashlib.blake2b(repr(facts).encode(), digest_size=7).digest()
        device, counts = tensors[0].device, [len(t) for t in tensors]
        own = [len(tensors), int.from_bytes(digest, "big"), *counts, *[0] * (4 - len(counts))]
        every = torch.tensor(own, device=device)
        every = collectives.all_gather(every, self.size).reshape(self.size, -1).tolist()
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

    def shared(self, x: torch.Tensor) -> torch.Tensor:
        """`x`, alike on each rank and used alike, of whose gradient each has an equal share."""
        return _Reported.apply(x, x, 1 / self.size)

    def added(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over ranks [n], alike on each, of which each has the gradient of its part."""
        return _Reported.apply(value, collectives.all_reduce(value.detach().clone()), 1)

    def log_added(self, value: torch.Tensor) -> torch.Tensor:
        """As `added`, log(sum over ranks of exp(value)) [n]."""
        return _LogAdded.apply(value)

    def summed(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over the ranks, whose gradients are added up too."""
        return _Summed.apply(tensor)

    def reported(self, total: torch.Tensor, count: torch.Tensor | None) -> torch.Tensor:
        """Sum of `total` over the sum of `count`, scalars of each rank; 0 where that is 0.

        Without `count`, the sum of `total`.

        Its gradient is that of this rank's part of the sum, times the number of ranks.
        """
        if count is None:
            return _Reported.apply(total, collectives.all_reduce(total.detach().clone()), self.size)
        both = torch.stack([total.detach(), count.detach().to(total.dtype)])
        both = collectives.all_reduce(both)
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
            return collectives.gather(self.sizes, tensor)
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
        return collectives.gather(rows.sizes, tensor)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return None, _ToOwner.apply(ctx.rows, g)


class _ToOwner(torch.autograd.Function):
    """Of each rank's rows, the sum over what all ranks have of them."""

    @staticmethod
    def forward(ctx: Any, rows: Rows, tensor: Any) -> Any:
        ctx.rows = rows
        return collectives.scatter(rows.sizes, rows.ranks.rank, tensor)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return None, _Gathered.apply(ctx.rows, g)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any) -> Any:
        return collectives.all_reduce(value.clone())

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return _Summed.apply(g)


class _LogAdded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any) -> Any:
        largest = collectives.all_reduce(value.clone(), "MAX")
        largest = largest.masked_fill(largest == -torch.inf, 0.0)
        every = collectives.all_reduce((value - largest).exp()).log() + largest
        ctx.save_for_backward(value, every)
        return every

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        refuse_again("classes that are sharded over ranks")
        value, every = ctx.saved_tensors
        return g * (value - every).exp().masked_fill(value == -torch.inf, 0.0)


class _Reported(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Any, every: Any, size: float) -> Any:
        ctx.size = size
        return every.clone()

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * ctx.size, None, None
