"""The loop over chunks in PyTorch: forward without a graph, backward with that of one chunk."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.checkpoint import get_device_states, set_device_states

from kinfold.core.torch_numerics import again, transformed

Values = list[torch.Tensor]


@torch.compiler.disable
def run(piece: Any, size: int, trainable: Values, others: Values, inputs: Values) -> Any:
    if inputs[0].is_meta or transformed():
        return piece(trainable, others, inputs)
    others, *outputs = _Chunks.apply(piece, size, others, *trainable, *inputs)
    return outputs, others


class _Chunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, piece: Any, size: int, others: Values, *tensors: torch.Tensor) -> Any:
        trainable, inputs = _parted(piece, tensors)
        n = len(inputs[0])
        cuts = [slice(start, min(start + size, n)) for start in range(0, n, size)]
        ctx.piece, ctx.cuts, ctx.others, ctx.random = piece, cuts, others, []
        ctx.autocast = _autocast(inputs[0].device.type)
        ctx.save_for_backward(*tensors)
        with torch.autocast(**ctx.autocast):
            for k, cut in enumerate(cuts):
                ctx.random.append(_random_state(inputs[0], ctx.random))
                before = others
                outputs, others = piece(trainable, before, [x[cut] for x in inputs])
                if k == 0:
                    # Small tensors kept from every chunk would lie between its freed buffers.
                    rows = [y.new_empty((n, *y.shape[1:])) for y in outputs]
                    ctx.states = [s.new_empty((len(cuts), *s.shape)) for s in piece.state(others)]
                for whole, part in zip(rows, outputs, strict=True):
                    whole[cut] = part
                for whole, part in zip(ctx.states, piece.state(before), strict=True):
                    whole[k] = part
        ctx.mark_non_differentiable(*(y for y in rows if not y.is_floating_point()))
        return others, *rows

    @staticmethod
    def backward(ctx: Any, _: Any, *g: torch.Tensor) -> Any:
        piece, tensors, wanted = ctx.piece, ctx.saved_tensors, ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():
            return None, None, None, *_twice(ctx, tensors, g)
        trainable, inputs = _parted(piece, tensors)
        sums = [torch.zeros_like(t) if w else None for t, w in zip(tensors, wanted, strict=True)]
        for k, cut in enumerate(ctx.cuts):
            chunk = [
                x[cut].detach().requires_grad_(w)
                for x, w in zip(inputs, wanted[len(trainable) :], strict=True)
            ]
            outputs = _again(ctx, k, trainable, chunk)
            _add(sums, cut, len(trainable), outputs, g, [*trainable, *chunk])
        return None, None, None, *sums


def _again(ctx: Any, k: int, trainable: Values, chunk: Values) -> Values:
    """Outputs of chunk `k` as the forward pass had them, with a graph."""
    others = ctx.piece.with_state(ctx.others, [s[k] for s in ctx.states])
    random, autocast = _random(chunk[0], ctx.random[k]), torch.autocast(**ctx.autocast)
    with torch.enable_grad(), random, autocast:
        return ctx.piece(trainable, others, chunk)[0]


def _twice(ctx: Any, tensors: Any, g: Any) -> list[Any]:
    """Gradients that can be differentiated once more, with the graphs of all chunks."""
    floating = [i for i, gy in enumerate(g) if gy is not None and gy.is_floating_point()]

    def outputs(*tensors: torch.Tensor) -> Values:
        trainable, inputs = _parted(ctx.piece, tensors)
        chunks = [
            _again(ctx, k, trainable, [x[cut] for x in inputs]) for k, cut in enumerate(ctx.cuts)
        ]
        return [torch.cat([chunk[i] for chunk in chunks]) for i in floating]

    return again(outputs, tensors, [g[i] for i in floating])


def _add(sums: Any, cut: slice, weights: int, outputs: Values, g: Any, tensors: Values) -> None:
    """Add the gradients of a chunk to those of the weights, and put those of its inputs down."""
    wanted = [i for i, total in enumerate(sums) if total is not None]
    pairs = [(y, gy[cut]) for y, gy in zip(outputs, g, strict=True) if y.requires_grad]
    if not pairs:
        return
    values, cotangents = zip(*pairs, strict=True)
    parts = torch.autograd.grad(values, [tensors[i] for i in wanted], cotangents, allow_unused=True)
    for i, part in zip(wanted, parts, strict=True):
        if part is not None:
            (sums[i] if i < weights else sums[i][cut]).add_(part)


def _parted(piece: Any, tensors: Any) -> tuple[Values, Values]:
    weights = len(piece.trainable)
    return list(tensors[:weights]), list(tensors[weights:])


def _autocast(device: str) -> dict[str, Any]:
    """What autocast does now, but for its cache: that keeps weights cast without a graph."""
    return {
        "device_type": device,
        "enabled": torch.is_autocast_enabled(device),
        "dtype": torch.get_autocast_dtype(device),
        "cache_enabled": False,
    }


def _random_state(x: torch.Tensor, before: list[Any]) -> Any:
    """State of PyTorch's own generators, which modules draw from; one object while it stays."""
    now = torch.get_rng_state(), *get_device_states(x)[1]
    if before and all(map(torch.equal, before[-1], now)):
        return before[-1]
    return now


@contextlib.contextmanager
def _random(x: torch.Tensor, state: Any) -> Iterator[None]:
    devices = [] if x.device.type == "cpu" else [x.get_device()]
    with torch.random.fork_rng(devices, device_type=x.device.type if devices else "cuda"):
        torch.set_rng_state(state[0])
        set_device_states(devices, state[1:], device_type=x.device.type)
        yield
