"""What PyTorch runs faster than the operations of Keras, by a handful of passes over a block.

XLA and torch.compile fuse what `kinfold.numerics` writes down; plain PyTorch takes each operation
as a pass of its own, and some are slow: exp of what it rounds to 0, masks as integers.
"""

import functools
import math
from typing import Any

import torch

# exp takes many times as long below, for less than a sum from 1 on can tell.
LEAST = {torch.float32: -80.0, torch.float64: -700.0}


def unwanted() -> bool:
    """Whether the plain forms serve better: where they are fused, traced, or transformed."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or _autocast()
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
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        x, largest = ctx.saved_tensors
        # Compared into numbers: a pass that makes or takes booleans is many times as slow.
        at = torch.eq(x, largest, out=torch.empty_like(x))
        ties = at.sum(ctx.axis, keepdim=True)
        if not x.is_cpu or float(ties.amax()) > 1.0:
            at /= ties
        return at.mul_(g.unsqueeze(ctx.axis)), None


class LogSumExp(torch.autograd.Function):
    """Log of the sum of exp(logits) along an axis, over the entries that the mask allows.

    Where there is none, 0, or -inf without a mask, and no gradient.
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
        value = torch.log(total).add_(largest)
        return value.masked_fill_(empty, -torch.inf if mask is None else 0.0).squeeze(axis)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        e, total, empty = ctx.saved_tensors
        return e * (g.unsqueeze(ctx.axis) / total).masked_fill_(empty, 0.0), None, None


class SquareRoot(torch.autograd.Function):
    """sqrt, with value and gradient 0 where its argument is 0 or, by rounding, below."""

    @staticmethod
    def forward(ctx: Any, square: torch.Tensor) -> torch.Tensor:
        root = square.clamp(min=0).sqrt_()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (root,) = ctx.saved_tensors
        return torch.where(root > 0, 0.5 * g / root, root.new_tensor(0.0))


class UnitRows(torch.autograd.Function):
    """Rows [..., d] scaled to unit length; one of zeros stays so, and gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
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
        ctx.save_for_backward(x, unit, scale)
        return unit

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        x, unit, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated once more
            square = (x * x).sum(-1, keepdim=True)
            some = square > 0
            scale = torch.where(some, torch.where(some, square, 1.0).rsqrt(), 0.0)
            unit = x * scale
            return (g - unit * (g * unit).sum(-1, keepdim=True)) * scale
        along = torch.linalg.vecdot(g, unit)[..., None]
        return torch.addcmul(g, unit, along, value=-1).mul_(scale)
