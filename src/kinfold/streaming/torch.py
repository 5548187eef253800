"""The loop over blocks and its vector-Jacobian product, in PyTorch."""

from typing import Any

import torch

from kinfold.streaming.symmetric_torch import only_shapes
from kinfold.streaming.symmetric_torch import symmetric as symmetric
from kinfold.streaming.symmetric_torch import whole as whole

Data = tuple[torch.Tensor, ...]


def dense(block: Any, x: torch.Tensor, r: torch.Tensor, anchors: Data, references: Data) -> Any:
    """One block, differentiated as it is."""
    return only_shapes(x) if x.is_meta else block(x, r, *anchors, *references)


@torch.compiler.disable
def per_anchor(
    block: Any, size: int, x: torch.Tensor, r: torch.Tensor, anchors: Data, references: Data
) -> Any:
    if x.is_meta:
        return only_shapes(x)
    return _PerAnchor.apply(block, size, x, r, anchors, references)


@torch.compiler.disable
def weighted_sum(
    block: Any,
    size: int,
    x: torch.Tensor,
    r: torch.Tensor,
    weights: torch.Tensor,
    anchors: Data,
    references: Data,
) -> Any:
    if x.is_meta:
        loss, valid = only_shapes(x)
        return loss.sum(), valid
    return _WeightedSum.apply(block, size, x, r, weights, anchors, references)


class _PerAnchor(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, block: Any, size: int, x: Any, r: Any, anchors: Any, references: Any
    ) -> Any:
        outputs = [
            block(x[cut], r, *(a[cut] for a in anchors), *references) for cut in _cuts(len(x), size)
        ]
        loss, valid = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        ctx.block, ctx.size, ctx.anchors, ctx.references = block, size, anchors, references
        ctx.save_for_backward(x, r)
        ctx.mark_non_differentiable(valid)
        return loss, valid

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Any, _: Any) -> Any:
        x, r = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:4]
        gradients = _Gradients(x, r, wanted)
        for cut in _cuts(len(x), ctx.size):
            data = (*(a[cut] for a in ctx.anchors), *ctx.references)
            gradients.add(ctx.block, cut, g[cut], data)
        return None, None, *gradients.finished(), None, None


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, block: Any, size: int, x: Any, r: Any, weights: Any, anchors: Any, references: Any
    ) -> Any:
        wanted = ctx.needs_input_grad[2:4]
        gradients = _Gradients(x, r, wanted)
        outputs = []
        for cut in _cuts(len(x), size):
            data = (*(a[cut] for a in anchors), *references)
            if any(wanted):
                outputs.append(gradients.add(block, cut, weights[cut], data))
            else:
                outputs.append(block(x[cut], r, *data))
        loss, valid = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        ctx.gradients = gradients.finished()
        ctx.save_for_backward(loss)
        ctx.mark_non_differentiable(valid)
        return (loss * weights).sum(), valid

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Any, _: Any) -> Any:
        (loss,) = ctx.saved_tensors
        dx, dr = (None if part is None else g * part for part in ctx.gradients)
        return None, None, dx, dr, g * loss if ctx.needs_input_grad[4] else None, None, None


class _Gradients:
    """Gradients with respect to anchors and references, gathered block by block."""

    def __init__(self, x: torch.Tensor, r: torch.Tensor, wanted: tuple[bool, bool]) -> None:
        self.x, self.r, self.wanted = x, r, wanted
        wide = torch.promote_types(r.dtype, torch.float32)
        self.dx = torch.empty_like(x) if wanted[0] else None
        self.dr = torch.zeros_like(r, dtype=wide) if wanted[1] else None

    def add(self, block: Any, cut: slice, g: torch.Tensor, data: Data) -> Any:
        """Add a block's part, for the cotangent `g` of its losses; return its outputs."""
        with torch.enable_grad():
            xt = self.x[cut].detach().requires_grad_(self.wanted[0])
            r = self.r.detach().requires_grad_(self.wanted[1])
            loss, valid = block(xt, r, *data)
            inputs = [t for t in (xt, r) if t.requires_grad]
            parts = iter(torch.autograd.grad(loss, inputs, g.to(loss.dtype)))
        if self.dx is not None:
            self.dx[cut] = next(parts)
        if self.dr is not None:
            self.dr += next(parts)
        return loss.detach(), valid

    def finished(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        return self.dx, None if self.dr is None else self.dr.to(self.r.dtype)


def _cuts(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
