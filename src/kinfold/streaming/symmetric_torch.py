"""Symmetric tiles in PyTorch, where each pass over a buffer counts.

Sorted by label, an anchor's positives are a run of the batch: they lie in a band along the
diagonal, and are few. The tiles of the upper triangle hold the negatives.
"""

from typing import Any

import torch

from kinfold.streaming.tiles import Family

# Anchors a block of the band, unless their classes are so large that it would be much wider.
BAND = 128

# Batches up to this size count operations, larger ones passes over memory.
SMALL = 256


@torch.compiler.disable
def symmetric(family: Family, diagonal: bool, size: int, x: torch.Tensor, y: torch.Tensor) -> Any:
    """Loss and validity of each anchor; `diagonal` is whether it is a positive of itself."""
    return _Rows.apply(family, diagonal, size, x, y)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, family: Family, diagonal: bool, size: int, x: Any, y: Any) -> Any:
        small = len(y) <= min(size, SMALL)
        batch = _Small(family, diagonal, x, y) if small else _Sorted(family, diagonal, size, x, y)
        sums = batch.sums()
        valid = (sums[0] > -torch.inf) & (sums[1] > -torch.inf)
        invalid = ~valid
        with torch.set_grad_enabled(ctx.needs_input_grad[3]):
            sums = [s.masked_fill_(invalid, 0.0).requires_grad_(x.requires_grad) for s in sums]
            ctx.combined = family.combine(*sums)
        ctx.batch, ctx.invalid, ctx.sums = batch, invalid, sums
        ctx.mark_non_differentiable(valid := batch.restore(valid))
        return batch.restore(ctx.combined.detach().masked_fill(invalid, 0.0)), valid

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Any, _: Any) -> Any:
        g = ctx.batch.sort(g).masked_fill(ctx.invalid, 0.0)
        weights = torch.autograd.grad(ctx.combined, ctx.sums, g, retain_graph=True)
        # An invalid anchor's exponentials are nothing.
        sums = [s.detach().masked_fill(ctx.invalid, torch.inf) for s in ctx.sums]
        dx = ctx.batch.gradient(*sums, *weights)
        return None, None, None, ctx.batch.restore(dx), None


class _Small:
    """A batch that is one tile, with few operations rather than few passes."""

    def __init__(self, family: Family, diagonal: bool, x: Any, y: Any) -> None:
        self.family, self.x = family, x.detach()
        self.d = family.distance.of_dot(self.x @ self.x.T)
        same = y[:, None] == y
        self.p_and_n = []
        for logit, allowed in ((family.positive_logit, same), (family.negative_logit, ~same)):
            if allowed is same and not diagonal:
                allowed = same.clone().fill_diagonal_(False)
            self.p_and_n.append(logit(self.d).masked_fill_(~allowed, -torch.inf))

    def sort(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def restore(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def sums(self) -> list[torch.Tensor]:
        return [torch.logsumexp(logits, 1) for logits in self.p_and_n]

    def gradient(self, p_sums: Any, n_sums: Any, p_weights: Any, n_weights: Any) -> torch.Tensor:
        (p, n), family = self.p_and_n, self.family
        m = torch.exp(p - p_sums[:, None]) * p_weights[:, None] * family.positive_slope(self.d)
        m += torch.exp(n - n_sums[:, None]) * n_weights[:, None] * family.negative_slope(self.d)
        m *= family.distance.dot_slope(self.d)
        return (m + m.T) @ self.x


class _Sorted:
    """Embeddings sorted by label."""

    def __init__(self, family: Family, diagonal: bool, size: int, x: Any, y: Any) -> None:
        self.family, self.diagonal = family, diagonal
        self.labels, self.order = torch.sort(y, stable=True)
        self.x = x.detach()[self.order]
        n = len(y)
        _, counts = torch.unique_consecutive(self.labels, return_counts=True)
        self.counts = counts.tolist()
        self.bounds = [slice(a, min(a + size, n)) for a in range(0, n, size)]
        self.shifts: dict[tuple[int, int], float] = {}

    def sums(self) -> list[torch.Tensor]:
        return [self.positive_sums(), self.negative_sums()]

    def gradient(self, p_sums: Any, n_sums: Any, p_weights: Any, n_weights: Any) -> torch.Tensor:
        dx = torch.zeros_like(self.x)
        self.add_positive_gradient(dx, p_sums, p_weights)
        self.add_negative_gradient(dx, n_sums, n_weights)
        return dx

    def sort(self, values: torch.Tensor) -> torch.Tensor:
        return values[self.order]

    def restore(self, values: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(values)
        out[self.order] = values
        return out

    def band(self) -> list[tuple[slice, slice]]:
        """Blocks of anchors, and the run of the batch that holds all their positives."""
        blocks, start, stop, step = [], 0, 0, BAND
        for count in self.counts:
            stop += count
            if stop - start >= step or stop == len(self.labels):
                width = stop - start
                rows = max(2**20 // width, 1)
                blocks += [
                    (slice(a, min(a + rows, stop)), slice(start, stop))
                    for a in range(start, stop, rows)
                ]
                start = stop
        return blocks

    def band_logits(self, rows: slice, run: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Distances and logits of a block of the band, -inf where a pair is no positive."""
        d = self.family.distance.of_dot(self.x[rows] @ self.x[run].T)
        other = self.labels[rows, None] != self.labels[None, run]
        if not self.diagonal:
            other.diagonal(rows.start - run.start).fill_(True)
        return d, self.family.positive_logit(d).masked_fill_(other, -torch.inf)

    def positive_sums(self) -> torch.Tensor:
        """P, -inf for an anchor without positives."""
        return torch.cat([torch.logsumexp(self.band_logits(*block)[1], 1) for block in self.band()])

    def add_positive_gradient(self, dx: Any, sums: Any, weights: Any) -> None:
        for rows, run in self.band():
            d, p = self.band_logits(rows, run)
            m = torch.exp(p - sums[rows, None]) * weights[rows, None]
            m += torch.exp(p - sums[None, run]) * weights[None, run]
            m *= self.family.positive_slope(d)
            m *= self.family.distance.dot_slope(d)
            dx[rows].addmm_(m, self.x[run])

    def tiles(self) -> list[tuple[slice, slice]]:
        return [(i, j) for a, i in enumerate(self.bounds) for j in self.bounds[a:]]

    def tile_logits(self, i: slice, j: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Distances and logits of a tile, -inf where a pair is no negative."""
        d = self.family.distance.of_dot(self.x[i] @ self.x[j].T)
        n = self.family.negative_logit(d)
        if i == j or self.labels[i.stop - 1] == self.labels[j.start]:
            n.masked_fill_(self.labels[i, None] == self.labels[None, j], -torch.inf)
        return d, n

    def negative_sums(self) -> torch.Tensor:
        """N, -inf for an anchor without negatives; in float64, to add up over tiles."""
        sums = self.x.new_full((len(self.x),), -torch.inf, dtype=torch.float64)
        for i, j in self.tiles():
            _, n = self.tile_logits(i, j)
            for at, part in self.tile_sums(i, j, n):
                sums[at] = torch.logaddexp(sums[at], part.double())
        return sums.to(self.x.dtype)

    def tile_sums(self, i: slice, j: slice, n: torch.Tensor) -> list[tuple[slice, torch.Tensor]]:
        """N of a tile's rows, and of its columns off the diagonal."""
        axes = [(i, 1)] if i == j else [(i, 1), (j, 0)]
        # One exponential serves rows and columns, where their largest logits are near enough that
        # none underflows; the gradient then uses the same shift.
        shift = float(n.max())
        if shift > -torch.inf:
            e = torch.exp(n - shift)
            totals = [(at, e.sum(axis)) for at, axis in axes]
            if min(float(total.min()) for _, total in totals) > 1e-20:
                self.shifts[i.start, j.start] = shift
                return [(at, total.log_().add_(shift)) for at, total in totals]
        return [(at, torch.logsumexp(n, axis)) for at, axis in axes]

    def add_negative_gradient(self, dx: Any, sums: Any, weights: Any) -> None:
        for i, j in self.tiles():
            d, n = self.tile_logits(i, j)
            shift = self.shifts.get((i.start, j.start))
            if shift is None:
                m = torch.exp(n - sums[i, None]) * weights[i, None]
                m += torch.exp(n - sums[None, j]) * weights[None, j]
            else:
                row, column = (torch.exp(shift - sums[at]) * weights[at] for at in (i, j))
                m = n.sub_(shift).exp_().mul_(row[:, None] + column[None, :])
            m *= self.family.negative_slope(d)
            m *= self.family.distance.dot_slope(d)
            dx[i].addmm_(m, self.x[j])
            if i != j:
                dx[j].addmm_(m.T, self.x[i])
