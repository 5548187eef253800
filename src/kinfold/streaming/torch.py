"""The loop over blocks and its vector-Jacobian product, in PyTorch."""

from typing import Any

import torch

from kinfold.numerics_torch import full_precision
from kinfold.streaming import tiles
from kinfold.streaming.symmetric_torch import only_shapes
from kinfold.streaming.symmetric_torch import symmetric as symmetric
from kinfold.streaming.symmetric_torch import whole as whole
from kinfold.streaming.tiles import LogSum

Data = tuple[torch.Tensor, ...]


def on_gpu(x: torch.Tensor) -> bool:
    """Whether what is computed of `x` runs on a GPU, which fused kernels serve."""
    return x.is_cuda


def kept(tensors: Data) -> Data:
    """Tensors that a backward pass may look at, whatever is written into the originals."""
    return tuple(t.clone() for t in tensors)


@full_precision
def dense(block: Any, x: torch.Tensor, r: torch.Tensor, anchors: Data, references: Data) -> Any:
    """One block, differentiated as it is."""
    return only_shapes(x) if x.is_meta else block(x, r, *anchors, *references)


@torch.compiler.disable
@full_precision
def per_anchor(
    block: Any, size: int, x: torch.Tensor, r: torch.Tensor, anchors: Data, references: Data
) -> Any:
    if x.is_meta:
        return only_shapes(x)
    return _PerAnchor.apply(block, size, x, r, anchors, references)


@torch.compiler.disable
@full_precision
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


@torch.compiler.disable
@full_precision
def sum_and_log_sum(
    block: Any, size: int, x: torch.Tensor, r: torch.Tensor, anchors: Data, references: Data
) -> Any:
    if x.is_meta:
        return (only_shapes(x)[0],) * 2
    return _SumAndLogSum.apply(block, size, x, r, anchors, references)


@torch.compiler.disable
@full_precision
def repeated(fn: Any, count: torch.Tensor, tensors: Data, data: Data) -> Any:
    if tensors[0].is_meta:
        return only_shapes(tensors[0])[0]
    return _Repeated.apply(fn, int(count), data, *tensors)


class _PerAnchor(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, block: Any, size: int, x: Any, r: Any, anchors: Any, references: Any
    ) -> Any:
        rows = _Outputs(len(x))
        for cut in _cuts(len(x), size):
            rows.put(cut, block(x[cut], r, *(a[cut] for a in anchors), *references))
        loss, valid = rows.parts
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
        rows = _Outputs(len(x))
        for cut in _cuts(len(x), size):
            data = (*(a[cut] for a in anchors), *references)
            if any(wanted):
                rows.put(cut, gradients.add(block, cut, weights[cut], data))
            else:
                rows.put(cut, block(x[cut], r, *data))
        loss, valid = rows.parts
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


class _SumAndLogSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, block: Any, size: int, x: Any, r: Any, anchors: Any, references: Any
    ) -> Any:
        total = x.new_zeros(len(x))
        ctx.log_sum = LogSum(torch.full_like(total, -torch.inf), torch.zeros_like(total))
        for cut in _cuts(len(r), size):
            terms, logits = block(x, r[cut], *anchors, *(a[cut] for a in references))
            total += terms.sum(1)
            ctx.log_sum = ctx.log_sum.merged(tiles.log_sum(logits, 1))
        ctx.block, ctx.size, ctx.anchors, ctx.references = block, size, anchors, references
        ctx.save_for_backward(x, r)
        return total, ctx.log_sum.value()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Any, g_log_sum: Any) -> Any:
        x, r = ctx.saved_tensors
        dx, dr = torch.zeros_like(x), torch.empty_like(r)
        for cut in _cuts(len(r), ctx.size):
            with torch.enable_grad():
                xs, rt = (t.detach().requires_grad_() for t in (x, r[cut]))
                terms, logits = ctx.block(xs, rt, *ctx.anchors, *(a[cut] for a in ctx.references))
            shares = tiles.shares(logits.detach(), ctx.log_sum, g_log_sum)
            both = g[:, None].expand_as(terms), shares
            part, dr[cut] = torch.autograd.grad((terms, logits), (xs, rt), both)
            dx += part
        return None, None, dx, dr, None, None


class _Repeated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fn: Any, count: int, data: Any, *tensors: Any) -> Any:
        ctx.fn, ctx.count, ctx.data = fn, count, data
        ctx.save_for_backward(*tensors)
        total = torch.zeros_like(tensors[0][:, 0])
        for k in range(count):
            total += fn(k, *tensors, *data)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Any) -> Any:
        sums = [torch.zeros_like(t) for t in ctx.saved_tensors]
        for k in range(ctx.count):
            with torch.enable_grad():
                tensors = [t.detach().requires_grad_() for t in ctx.saved_tensors]
                value = ctx.fn(k, *tensors, *ctx.data)
            for total, part in zip(sums, torch.autograd.grad(value, tensors, g), strict=True):
                total += part
        return None, None, None, *sums


class _Outputs:
    """Outputs of all anchors, each written where it belongs.

    Kept as parts, they would lie between the freed buffers of the blocks, and glibc could not join
    these into ones large enough for the next block: memory would grow with the batch.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.parts: list[torch.Tensor] = []

    def put(self, cut: slice, outputs: Any) -> None:
        if not self.parts:
            self.parts = [part.new_empty(self.n) for part in outputs]
        for rows, part in zip(self.parts, outputs, strict=True):
            rows[cut] = part


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
