"""What PyTorch runs faster than the operations of Keras, by a handful of passes over a block.

XLA and torch.compile fuse what `numerics` writes down; plain PyTorch takes each operation as a pass
of its own, and some are slow: exp of what it rounds to 0, masks as integers.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

# exp takes many times as long below, for less than a sum from 1 on can tell.
LEAST = {torch.float32: -80.0, torch.float64: -700.0}


_plain = [False]


def unwanted() -> bool:
    """Whether the plain forms serve better: where they are fused, traced, or transformed."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or differentiated_again()
        or _autocast()
    )


def transformed() -> bool:
    """Whether a transform of torch.func (grad, vmap, jvp) looks at what is computed."""
    return bool(torch._C._are_functorch_transforms_active())


def differentiated_again() -> bool:
    """Whether a gradient of this may itself be differentiated, by `again` or torch.func.

    Equations must then be written in operations whose derivatives have derivatives.
    """
    return _plain[0] or transformed()


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    before = _plain[0]
    _plain[0] = True
    try:
        yield
    finally:
        _plain[0] = before


def again(
    equation: Callable[..., Any], tensors: Sequence[Any], cotangents: Sequence[Any]
) -> list[Any]:
    """Gradients of `equation(*tensors)` that can be differentiated once more.

    For the backward pass of a Function under `create_graph=True`, where `torch.is_grad_enabled()`
    is true: what a fast backward pass computes would count as a constant there, and second-order
    gradients would be wrong without a word.

    Args:
        equation: what the Function computes, in operations of PyTorch: one output or several.
        tensors: its arguments; None where there is none.
        cotangents: one for each output.

    Returns:
        A gradient for each of the tensors; None for one that needs none.
    """
    with torch.enable_grad(), _plainly():
        # Views, so that a tensor that is given twice has two gradients.
        at = [None if t is None else t.view_as(t) for t in tensors]
        outputs = equation(*at)
        wanted = [i for i, t in enumerate(at) if t is not None and t.requires_grad]
        found = torch.autograd.grad(
            outputs, [at[i] for i in wanted], list(cotangents), create_graph=True, allow_unused=True
        )
    parts: list[Any] = [None] * len(at)
    for i, part in zip(wanted, found, strict=True):
        parts[i] = part
    return parts


def refuse_again(what: str) -> None:
    """Raise where a backward pass is to be differentiated once more, which `what` cannot serve."""
    if torch.is_grad_enabled():
        raise NotImplementedError(
            f"There are no second-order gradients (create_graph=True) through {what}."
        )


def _autocast() -> bool:
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")


def full_precision(fn: Any) -> Any:
    """Wrap a function of tensors so that torch.autocast does not narrow what it computes."""

    @functools.wraps(fn)
    def run(*args: Any) -> Any:
        if not _autocast():
            return fn(*args)
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return fn(*args)

    return run


def exp_(shifted: torch.Tensor) -> torch.Tensor:
    """exp, in place, of logits whose largest are near 0; 0 from `LEAST` on down, as for -inf."""
    least = LEAST[shifted.dtype]
    e = shifted.clamp_(min=least).exp_()
    return torch.threshold_(e, 1.001 * math.exp(least), 0.0)


def extent(x: torch.Tensor) -> torch.Tensor:
    """Half of the range of all numbers, at least in float32; not finite where one is not."""
    least, most = torch.aminmax(x.detach())
    wide = torch.promote_types(x.dtype, torch.float32)
    return most.to(wide) / 2 - least.to(wide) / 2


def count(mask: torch.Tensor) -> torch.Tensor:
    """How many entries of each row are True, int32 [t]."""
    return mask.view(torch.uint8).sum(1, dtype=torch.int32)


def some(mask: torch.Tensor) -> torch.Tensor:
    """Whether any entry of each row is True, boolean [t]."""
    return mask.view(torch.uint8).amax(1) > 0


class Largest(torch.autograd.Function):
    """The largest entry along an axis; equal ones share its gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, axis: int) -> torch.Tensor:
        largest = x.amax(axis, keepdim=True)
        ctx.save_for_backward(x, largest)
        ctx.axis = axis
        return largest.squeeze(axis)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        with torch.no_grad():  # where the largest ones are has no derivative
            x, largest = ctx.saved_tensors
            # Compared into numbers: a pass that makes or takes booleans is many times as slow.
            at = torch.eq(x, largest, out=torch.empty_like(x))
            ties = at.sum(ctx.axis, keepdim=True)
            if not x.is_cpu or float(ties.amax()) > 1.0:
                at /= ties
        g = g.unsqueeze(ctx.axis)
        return at * g if torch.is_grad_enabled() else at.mul_(g), None


class LogSumExp(torch.autograd.Function):
    """Log of the sum of exp(logits) along an axis, over the entries that the mask allows.

    Where there is none, 0, or -inf without a mask, and no gradient. The exponentials, less the
    largest, are a second output: the gradient is a function of them, and so is its own gradient.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, mask: torch.Tensor | None, axis: int) -> Any:
        own = None
        if mask is not None:
            own = logits = torch.where(mask, logits, logits.new_tensor(-torch.inf))
        largest = logits.amax(axis, keepdim=True)
        empty = largest == -torch.inf
        largest.masked_fill_(empty, 0.0)
        e = exp_(torch.sub(logits, largest, out=own))
        total = e.sum(axis, keepdim=True)
        ctx.save_for_backward(e, total, empty)
        ctx.axis = axis
        ctx.set_materialize_grads(False)
        value = torch.log(total).add_(largest)
        return value.masked_fill_(empty, -torch.inf if mask is None else 0.0).squeeze(axis), e

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor | None, ge: torch.Tensor | None) -> Any:
        e, total, empty = ctx.saved_tensors
        if torch.is_grad_enabled():
            total = e.sum(ctx.axis, keepdim=True).masked_fill(empty, 1.0)
        logits = None
        if g is not None:
            logits = e * (g.unsqueeze(ctx.axis) / total).masked_fill(empty, 0.0)
        if ge is not None:  # of a gradient that is differentiated
            logits = e * ge if logits is None else logits + e * ge
        return logits, None, None


class SquareRoot(torch.autograd.Function):
    """sqrt, with value and gradient 0 where its argument is 0 or, by rounding, below."""

    @staticmethod
    def forward(ctx: Any, square: torch.Tensor) -> torch.Tensor:
        root = square.clamp(min=0).sqrt_()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (root,) = ctx.saved_tensors
        some = ~(root <= 0)  # of NaN too
        if torch.is_grad_enabled():
            return torch.where(some, 0.5 * g / torch.where(some, root, 1.0), 0.0)
        return torch.where(some, 0.5 * g / root, root.new_tensor(0.0))


class UnitRows(torch.autograd.Function):
    """Rows [..., d] scaled to unit length; one of zeros stays so, and gets no gradient.

    The scale is a second output, for gradients of gradients: see `LogSumExp`.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> Any:
        square = torch.linalg.vecdot(x, x)[..., None]
        if x.is_cpu and x.numel() and 1e-30 < float(square.amin()) <= float(square.amax()) < 1e30:
            scale = square.rsqrt_()
            unit = x * scale
        else:
            # Scaled first, so that no square overflows or vanishes; a subnormal row counts as 0.
            largest = x.abs().amax(-1, keepdim=True)
            none = largest <= torch.finfo(torch.float32).tiny
            unit = x / largest.masked_fill_(none, 1.0)
            scale = torch.linalg.vecdot(unit, unit)[..., None].rsqrt_().masked_fill_(none, 0.0)
            unit.mul_(scale)
            scale = scale / largest
        ctx.save_for_backward(unit, scale)
        ctx.set_materialize_grads(False)
        return unit, scale

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor | None, gs: torch.Tensor | None) -> Any:
        unit, scale = ctx.saved_tensors
        if g is None and gs is None:
            return None
        if not torch.is_grad_enabled() and gs is None:
            along = torch.linalg.vecdot(g, unit)[..., None]
            return torch.addcmul(g, unit, along, value=-1).mul_(scale)
        dx = 0.0 if g is None else (g - unit * (g * unit).sum(-1, keepdim=True)) * scale
        return dx if gs is None else dx - unit * (gs * scale * scale)
