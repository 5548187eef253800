"""The loop over blocks and its vector-Jacobian product, in PyTorch.

Under `create_graph=True` a backward pass takes the equation on one block instead of its loop (see
`torch_numerics.again`), so that second-order gradients are right; they take its memory.
"""

from typing import Any

import torch

from kinfold.core.numerics import at_least_float32, log_sum_exp
from kinfold.core.torch_numerics import again, full_precision, refuse_again, transformed
from kinfold.streaming import log_sums
from kinfold.streaming.log_sums import LogSum

Data = tuple[torch.Tensor, ...]


def on_gpu(x: torch.Tensor) -> bool:
    """Whether what is computed of `x` runs on a GPU, which fused kernels serve."""
    return x.is_cuda


def snapshot(tensors: Data) -> Data:
    """Tensors that a backward pass may look at, whatever is written into the originals."""
    return tuple(t.clone() for t in tensors)


def only_shapes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What stands for losses and validity of an `x` without values (see `checks.is_concrete`)."""
    rows = x[:, 0]
    return rows, rows > 0


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
    if transformed():
        return _plain_sum(fn, int(count), tensors, data)
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
    @full_precision
    def backward(ctx: Any, g: Any, _: Any) -> Any:
        x, r = ctx.saved_tensors
        if torch.is_grad_enabled():

            def rows(x: Any, r: Any) -> Any:
                return ctx.block(x, r, *ctx.anchors, *ctx.references)[0]

            return None, None, *again(rows, (x, r), [g]), None, None
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
        ctx.block, ctx.data = block, (*anchors, *references)
        ctx.versions = [t._version for t in ctx.data]
        ctx.save_for_backward(x, r, weights, loss)
        ctx.mark_non_differentiable(valid)
        return (loss * weights).sum(), valid

    @staticmethod
    @full_precision
    def backward(ctx: Any, g: Any, _: Any) -> Any:
        x, r, weights, loss = ctx.saved_tensors
        if torch.is_grad_enabled():
            if ctx.versions != [t._version for t in ctx.data]:
                refuse_again("a memory of earlier batches, which has been written over since")

            def total(x: Any, r: Any, weights: Any) -> Any:
                return (ctx.block(x, r, *ctx.data)[0] * weights).sum()

            dx, dr, dw = again(total, (x, r, weights), [g])
            return None, None, dx, dr, dw, None, None
        dx, dr = (None if part is None else g * part for part in ctx.gradients)
        return None, None, dx, dr, g * loss if ctx.needs_input_grad[4] else None, None, None


class _SumAndLogSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, block: Any, size: int, x: Any, r: Any, anchors: Any, references: Any
    ) -> Any:
        total = at_least_float32(x.new_zeros(len(x)))
        ctx.log_sum = LogSum(torch.full_like(total, -torch.inf), torch.zeros_like(total))
        for cut in _cuts(len(r), size):
            terms, logits = map(
                at_least_float32, block(x, r[cut], *anchors, *(a[cut] for a in references))
            )
            total += terms.sum(1)
            ctx.log_sum = ctx.log_sum.merged(log_sums.log_sum(logits, 1))
        ctx.block, ctx.size, ctx.anchors, ctx.references = block, size, anchors, references
        ctx.save_for_backward(x, r)
        return total, ctx.log_sum.value()

    @staticmethod
    @full_precision
    def backward(ctx: Any, g: Any, g_log_sum: Any) -> Any:
        x, r = ctx.saved_tensors
        if torch.is_grad_enabled():

            def sums(x: Any, r: Any) -> Any:
                terms, logits = map(
                    at_least_float32, ctx.block(x, r, *ctx.anchors, *ctx.references)
                )
                return terms.sum(1), log_sum_exp(logits)

            return None, None, *again(sums, (x, r), [g, g_log_sum]), None, None
        dx, dr = _zeros(x), torch.empty_like(r)
        for cut in _cuts(len(r), ctx.size):
            with torch.enable_grad():
                xs, rt = (t.detach().requires_grad_() for t in (x, r[cut]))
                data = (*ctx.anchors, *(a[cut] for a in ctx.references))
                terms, logits = map(at_least_float32, ctx.block(xs, rt, *data))
            shares = log_sums.shares(logits.detach(), ctx.log_sum, g_log_sum)
            both = g[:, None].expand_as(terms), shares
            part, dr[cut] = torch.autograd.grad((terms, logits), (xs, rt), both)
            dx += part
        return None, None, dx.to(x.dtype), dr, None, None


class _Repeated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fn: Any, count: int, data: Any, *tensors: Any) -> Any:
        ctx.fn, ctx.count, ctx.data = fn, count, data
        ctx.save_for_backward(*tensors)
        total = _zeros(tensors[0][:, 0])
        for k in range(count):
            total += fn(k, *tensors, *data)
        return total.to(tensors[0].dtype)

    @staticmethod
    @full_precision
    def backward(ctx: Any, g: Any) -> Any:
        if torch.is_grad_enabled():

            def total(*tensors: Any) -> Any:
                return _plain_sum(ctx.fn, ctx.count, tensors, ctx.data)

            return None, None, None, *again(total, ctx.saved_tensors, [g])
        sums = [_zeros(t) for t in ctx.saved_tensors]
        for k in range(ctx.count):
            with torch.enable_grad():
                tensors = [t.detach().requires_grad_() for t in ctx.saved_tensors]
                value = ctx.fn(k, *tensors, *ctx.data)
            parts = torch.autograd.grad(value, tensors, g.to(value.dtype))
            for total, part in zip(sums, parts, strict=True):
                total += part
        saved = ctx.saved_tensors
        return None, None, None, *(s.to(t.dtype) for s, t in zip(sums, saved, strict=True))


@torch.compiler.disable
@full_precision
def with_equation(fast: Any, equation: Any, tensors: Data, data: Data) -> torch.Tensor:
    if transformed() or tensors[0].is_meta:
        return equation(*tensors, *data)
    return _WithEquation.apply(fast, equation, data, *tensors)


class _WithEquation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fast: Any, equation: Any, data: Any, *tensors: Any) -> Any:
        wanted = ctx.needs_input_grad[3:]
        with torch.set_grad_enabled(any(wanted)):
            at = [t.detach().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]
            value = fast(*at, *data)
        ctx.at, ctx.value, ctx.equation, ctx.data = at, value, equation, data
        ctx.save_for_backward(*tensors)
        return value.detach()

    @staticmethod
    @full_precision
    def backward(ctx: Any, g: Any) -> Any:
        if torch.is_grad_enabled():

            def rows(*tensors: Any) -> Any:
                return ctx.equation(*tensors, *ctx.data)

            return None, None, None, *again(rows, ctx.saved_tensors, [g])
        wanted = [t for t in ctx.at if t.requires_grad]
        parts = iter(torch.autograd.grad(ctx.value, wanted, g, retain_graph=True))
        return None, None, None, *(next(parts) if t.requires_grad else None for t in ctx.at)


def _plain_sum(fn: Any, count: int, tensors: Any, data: Data) -> Any:
    parts = [fn(k, *tensors, *data) for k in range(count)]
    return sum(parts, at_least_float32(tensors[0][:, 0]) * 0.0).to(tensors[0].dtype)


def _zeros(like: torch.Tensor) -> torch.Tensor:
    """Zeros for a sum over blocks, in float32 at least."""
    return torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32))


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
        self.dx = torch.empty_like(x) if wanted[0] else None
        self.dr = _zeros(r) if wanted[1] else None

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
