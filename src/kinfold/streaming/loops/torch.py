"""Sums over k, and values whose gradient comes from somewhere else, in PyTorch."""

from typing import Any

import torch

from kinfold.core.numerics import at_least_float32
from kinfold.core.torch_numerics import again, full_precision, transformed
from kinfold.streaming.torch import Data, only_shapes, zeros


@torch.compiler.disable
@full_precision
def repeated(fn: Any, count: torch.Tensor, tensors: Data, data: Data) -> Any:
    if tensors[0].is_meta:
        return only_shapes(tensors[0])[0]
    if transformed():
        return _plain_sum(fn, int(count), tensors, data)
    return _Repeated.apply(fn, int(count), data, *tensors)


class _Repeated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fn: Any, count: int, data: Any, *tensors: Any) -> Any:
        ctx.fn, ctx.count, ctx.data = fn, count, data
        ctx.save_for_backward(*tensors)
        total = zeros(tensors[0][:, 0])
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
        sums = [zeros(t) for t in ctx.saved_tensors]
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
