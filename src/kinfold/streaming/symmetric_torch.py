"""Tiles of the upper triangle, in PyTorch."""

from typing import Any

import torch

from kinfold.streaming import tiles
from kinfold.streaming.tiles import Family, Side


@torch.compiler.disable
def symmetric(family: Family, diagonal: bool, size: int, x: torch.Tensor, y: torch.Tensor) -> Any:
    """Loss and validity of each anchor; `diagonal` is whether it is a positive of itself."""
    return _Rows.apply(family, diagonal, size, x, y)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, family: Family, diagonal: bool, size: int, x: Any, y: Any) -> Any:
        grid = _Grid(family, diagonal, size, x, y)
        positive, negative, valid = grid.sums()
        loss = family.combine(torch.where(valid, positive, 0.0), torch.where(valid, negative, 0.0))
        loss = torch.where(valid, loss, 0.0)
        ctx.grid, ctx.sums = grid, (positive, negative, valid)
        back = torch.empty_like(grid.order)
        back[grid.order] = torch.arange(len(y), device=y.device)
        ctx.mark_non_differentiable(valid_there := valid[back])
        return loss[back].to(x.dtype), valid_there

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Any, _: Any) -> Any:
        return None, None, None, ctx.grid.gradient(g, *ctx.sums), None


class _Grid:
    """A batch sorted by label, so that positive pairs lie in few tiles along the diagonal."""

    def __init__(self, family: Family, diagonal: bool, size: int, x: Any, y: Any) -> None:
        self.family, self.diagonal = family, diagonal
        self.labels, self.order = torch.sort(y, stable=True)
        self.x = x[self.order]
        cuts = [slice(start, min(start + size, len(y))) for start in range(0, len(y), size)]
        ends = self.labels.tolist() if len(cuts) > 1 else [0]
        self.tiles = [
            (i, j, i == j or ends[i.stop - 1] == ends[j.start])
            for a, i in enumerate(cuts)
            for j in cuts[a:]
        ]

    def masks(self, i: slice, j: slice) -> tuple[torch.Tensor, torch.Tensor]:
        same = self.labels[i, None] == self.labels[None, j]
        negative = ~same
        if i == j and not self.diagonal:
            same.fill_diagonal_(False)
        return same, negative

    def sums(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """P and N of each anchor, and whether it is valid."""
        positive = self.x.new_full((len(self.x),), -torch.inf)
        negative = positive.clone()
        for i, j, mixed in self.tiles:
            xi, xj = self.x[i], self.x[j]
            if mixed:
                (pi, ni), (pj, nj) = tiles.mixed_sums(self.family, xi, xj, *self.masks(i, j))
                positive[i] = torch.logaddexp(positive[i], pi)
                if i != j:
                    positive[j] = torch.logaddexp(positive[j], pj)
            else:
                ni, nj = tiles.clean_sums(self.family, xi, xj)
            negative[i] = torch.logaddexp(negative[i], ni)
            if i != j:
                negative[j] = torch.logaddexp(negative[j], nj)
        valid = (positive > -torch.inf) & (negative > -torch.inf)
        return positive, negative, valid

    def gradient(self, g: Any, positive: Any, negative: Any, valid: Any) -> torch.Tensor:
        """dx, for the cotangent `g` of the anchors' losses."""
        g = torch.where(valid, g[self.order].to(positive.dtype), 0.0)
        with torch.enable_grad():
            inputs = [torch.where(valid, s, 0.0).requires_grad_() for s in (positive, negative)]
            weights = torch.autograd.grad(self.family.combine(*inputs), inputs, g)
        # An invalid anchor's exponentials are nothing.
        side = Side(*(torch.where(valid, s, torch.inf) for s in (positive, negative)), *weights)
        dx = torch.zeros_like(self.x)
        for i, j, mixed in self.tiles:
            xi, xj = self.x[i], self.x[j]
            row, column = (Side(*(part[at] for part in side)) for at in (i, j))
            if mixed:
                m = tiles.mixed_gradient(self.family, xi, xj, row, column, *self.masks(i, j))
            else:
                m = tiles.clean_gradient(self.family, xi, xj, row, column)
            dx[i].addmm_(m, xj)
            if i != j:
                dx[j].addmm_(m.T, xi)
        out = torch.empty_like(dx)
        out[self.order] = dx
        return out
