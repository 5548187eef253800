"""The sigmoid loss of pairs in PyTorch.

Where the weights of the losses are known going in, the gradient is taken with the value: six
products' worth of work for both.
"""

from typing import Any

import torch

from kinfold.core.torch_numerics import full_precision, refuse_again
from kinfold.streaming.fused.tiles import tiles
from kinfold.streaming.fused.triton import launch
from kinfold.streaming.fused.triton.sides import cuts, padded

# Half precision has no small numbers; what a weight of its largest becomes leaves room above.
LARGEST = {torch.float16: 2.0**14}


def rows_and_gradients(
    x: torch.Tensor,
    r: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    weights: torch.Tensor | None,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Loss of each pair [n], and, of their sum times `weights`, the gradients.

    Returns:
        The losses, and the gradients with respect to x, r, scale and bias; none without weights.
    """
    (n, d), chosen = x.shape, tiles(x.shape[1], x.dtype, launch.shared_memory(x))
    wide = [padded(side, chosen.width) for side in (x, r)]
    numbers = torch.stack([scale.reshape(()), bias.reshape(())]).float()
    rows = torch.zeros(n, dtype=torch.float32, device=x.device)
    factor = torch.ones((), device=x.device)
    totals, pull = [], torch.zeros((), dtype=torch.float64, device=x.device)
    if weights is not None:
        if x.dtype in LARGEST:
            largest = weights.abs().max().float()
            factor = torch.where(largest > 0, largest / LARGEST[x.dtype], 1.0)
        weights = weights.float() / factor
        totals = [torch.zeros_like(side, dtype=torch.float32) for side in wide]
    for i in cuts(n, chosen.block):
        for j in cuts(n, chosen.block):
            block, losses, pulls = _block(wide, (i, j), weights, numbers, chosen)
            rows[i] += losses
            if totals:
                pull += pulls
                launch.add_product(totals[0][i], block, wide[1][j], 1.0)
                launch.add_product(totals[1][j], block.T, wide[0][i], 1.0)
    if not totals:
        return rows, ()
    slope = launch.inner(totals[0], wide[0]) * factor
    del block
    dr = totals.pop().mul_(numbers[0] * factor)[:, :d].to(x.dtype)
    dx = totals.pop().mul_(numbers[0] * factor)[:, :d].to(x.dtype)
    return rows, (dx, dr, _like(slope, scale), _like(pull * factor, bias))


def _like(number: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return number.to(other.dtype).reshape(other.shape)


def _block(
    sides: list[torch.Tensor], at: tuple[slice, slice], weights: Any, numbers: Any, chosen: Any
) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Derivatives of a block, the losses of its rows, and the sum of the derivatives."""
    from kinfold.streaming.fused.triton import sigmoid as kernels

    (x, r), tile = (side[cut] for side, cut in zip(sides, at, strict=True)), chosen.backward
    n, m = len(x), len(r)
    wanted = weights is not None
    programs = launch.programs_of(x, r, tile)
    if wanted or chosen.given:
        whole, block = launch.written(x, r, tile, chosen.given)
    else:  # nothing is written
        whole = block = x.new_empty(1, 1)
    losses = torch.empty(programs[1], n, dtype=torch.float32, device=x.device)
    pulls = torch.empty_like(losses) if wanted else losses
    with launch.on_device(x):
        kernels.sigmoids[programs](
            *(x, r, weights[at[0]] if wanted else losses, numbers, whole, losses, pulls),
            *(n, m, whole.stride(0), at[0].start - at[1].start),
            GIVEN=chosen.given,
            GRADIENT=wanted,
            **launch.sizes(chosen, tile),
        )
    return block, losses.sum(0), pulls.sum(dtype=torch.float64) if wanted else None


class Rows(torch.autograd.Function):
    """Loss of each pair."""

    @staticmethod
    def forward(ctx: Any, x: Any, r: Any, scale: Any, bias: Any) -> Any:
        ctx.save_for_backward(x, r, scale, bias)
        return rows_and_gradients(x, r, scale, bias, None)[0]

    @staticmethod
    @full_precision
    def backward(ctx: Any, g: Any) -> Any:
        refuse_again("the fused kernels; compute the loss within `fused_kernels(False)`")
        x, r, scale, bias = ctx.saved_tensors
        return rows_and_gradients(x, r, scale, bias, g)[1]


class Total(torch.autograd.Function):
    """Sum of the losses times weights, whose gradient is taken with it."""

    @staticmethod
    def forward(
        ctx: Any, x: Any, r: Any, scale: Any, bias: Any, weights: Any, differentiated: bool
    ) -> Any:
        wanted = differentiated and any(ctx.needs_input_grad[:4])
        rows, gradients = rows_and_gradients(x, r, scale, bias, weights if wanted else None)
        ctx.save_for_backward(rows, *gradients)
        return (rows * weights).sum()

    @staticmethod
    @full_precision
    def backward(ctx: Any, g: Any) -> Any:
        refuse_again("the fused kernels; compute the loss within `fused_kernels(False)`")
        rows, *gradients = ctx.saved_tensors
        every = [*gradients, *[None] * (4 - len(gradients)), rows, None]
        pairs = zip(every, ctx.needs_input_grad, strict=True)
        return tuple(g.to(part.dtype) * part if wanted else None for part, wanted in pairs)
