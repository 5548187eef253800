"""Symmetric tiles in PyTorch, where each pass over a buffer counts.

Sorted by label, an anchor's positives are a run of the batch: they lie in a band along the
diagonal, and are few. The tiles of the upper triangle hold the negatives.
"""

import functools
from typing import Any

import torch

from kinfold.core import pairs
from kinfold.core.numerics import log_sum_exp
from kinfold.core.torch_numerics import again, exp_, full_precision
from kinfold.streaming.family import Family
from kinfold.streaming.torch import only_shapes

# Anchors per block of the band; more if their classes are larger.
BAND = 128


@torch.compiler.disable
@full_precision
def whole(family: Family, diagonal: bool, x: torch.Tensor, y: torch.Tensor) -> Any:
    """Loss and validity of each anchor; `diagonal` is whether it is a positive of itself."""
    return _Rows.apply(_Whole(family, diagonal, x.detach(), y), (family, diagonal, y), x)


@torch.compiler.disable
@full_precision
def symmetric(family: Family, diagonal: bool, size: int, x: torch.Tensor, y: torch.Tensor) -> Any:
    """As `whole`, in tiles of `size` rows and columns."""
    if x.is_meta:
        return only_shapes(x)
    return _Rows.apply(_Sorted(family, diagonal, size, x.detach(), y), (family, diagonal, y), x)


def _equation(family: Family, diagonal: bool, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Loss of each anchor, as plain operations."""
    d = family.distance.of_dot(x @ x.T)
    at = torch.arange(len(y), device=y.device)
    positive, negative = pairs.masks(y, y, rows=at, diagonal=diagonal)
    sums = (
        log_sum_exp(family.positive.value(d), positive),
        log_sum_exp(family.negative.value(d), negative),
    )
    rows = family.combine(*sums)
    return torch.where(pairs.valid_anchors(positive, negative), rows, 0.0)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, batch: Any, equation: Any, x: Any) -> Any:
        family, sums = batch.family, batch.sums()
        valid = (sums[0] != -torch.inf) & (sums[1] != -torch.inf)  # NaN is to be seen
        invalid = ~valid
        with torch.set_grad_enabled(ctx.needs_input_grad[2]):
            sums = [s.masked_fill_(invalid, 0.0).requires_grad_(x.requires_grad) for s in sums]
            ctx.combined = family.combine(*sums)
        ctx.batch, ctx.invalid, ctx.sums, ctx.equation = batch, invalid, sums, equation
        ctx.save_for_backward(x)
        ctx.mark_non_differentiable(valid := batch.restore(valid))
        loss = ctx.combined.detach().masked_fill(invalid, 0.0).to(x.dtype)
        return batch.restore(loss), valid

    @staticmethod
    @full_precision
    def backward(ctx: Any, g: Any, _: Any) -> Any:
        if torch.is_grad_enabled():
            rows = functools.partial(_equation, *ctx.equation)
            return None, None, *again(rows, ctx.saved_tensors, [g])
        g = ctx.batch.sort(g).masked_fill(ctx.invalid, 0.0).double()
        weights = torch.autograd.grad(ctx.combined, ctx.sums, g, retain_graph=True)
        dx = ctx.batch.gradient(*weights)
        return None, None, ctx.batch.restore(dx)


class _LogSum:
    """log(sum exp) of each row of logits, in parts: large ones lose no digits to the log."""

    def __init__(self, logits: torch.Tensor) -> None:
        largest = logits.amax(1)
        self.largest = largest.masked_fill(largest == -torch.inf, 0.0)
        self.exponentials = exp_(logits - self.largest[:, None])
        self.total = self.exponentials.sum(1)
        self.value = torch.log(self.total.double()) + self.largest

    def share(self, weights: torch.Tensor) -> torch.Tensor:
        return _share(weights, self.total)


def _own(logit: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """A logit that can be changed in place: not the distances themselves."""
    return logit.clone() if logit.data_ptr() == d.data_ptr() else logit


def _share(weights: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """weights / total, 0 for invalid anchors."""
    return (weights / total).masked_fill_(weights == 0, 0.0).to(total.dtype)


class _Whole:
    """A batch that is one tile, with few operations rather than few passes."""

    def __init__(self, family: Family, diagonal: bool, x: Any, y: Any) -> None:
        self.family, self.x = family, x
        self.d = family.distance.of_dot(self.x @ self.x.T)
        same = y[:, None] == y
        self.p_and_n = []
        for logit, allowed in ((family.positive.value, same), (family.negative.value, ~same)):
            if allowed is same and not diagonal:
                allowed = same.clone().fill_diagonal_(False)
            self.p_and_n.append(_own(logit(self.d), self.d).masked_fill_(~allowed, -torch.inf))

    def sort(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def restore(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def sums(self) -> list[torch.Tensor]:
        self.parts = [_LogSum(logits) for logits in self.p_and_n]
        return [part.value for part in self.parts]

    def gradient(self, p_weights: Any, n_weights: Any) -> torch.Tensor:
        (p, n), family, d = self.parts, self.family, self.d
        m = p.exponentials * p.share(p_weights)[:, None]
        m *= family.positive.slope(d)
        m += (n.exponentials * n.share(n_weights)[:, None]).mul_(family.negative.slope(d))
        m *= family.distance.dot_slope(d)
        return (m + m.T) @ self.x


class _Sorted:
    """Embeddings sorted by label."""

    def __init__(self, family: Family, diagonal: bool, size: int, x: Any, y: Any) -> None:
        self.family, self.diagonal = family, diagonal
        self.labels, self.order = torch.sort(y, stable=True)
        self.x = x[self.order]
        n = len(y)
        _, counts = torch.unique_consecutive(self.labels, return_counts=True)
        self.counts = counts.tolist()
        self.bounds = [slice(a, min(a + size, n)) for a in range(0, n, size)]
        self.parts = self.x.split(size)
        self.first = self.labels[::size].tolist()
        self.last = [int(self.labels[bound.stop - 1]) for bound in self.bounds]
        self.buffers = self.x.new_empty(2, min(size, n) ** 2)
        self.shifts: dict[tuple[int, int], tuple[float, float]] = {}

    def sums(self) -> list[torch.Tensor]:
        return [self.positive_sums(), self.negative_sums()]

    def gradient(self, p_weights: Any, n_weights: Any) -> torch.Tensor:
        dx = torch.zeros_like(self.x)
        self.add_positive_gradient(dx, p_weights)
        self.add_negative_gradient(dx, n_weights)
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
        return d, _own(self.family.positive.value(d), d).masked_fill_(other, -torch.inf)

    def positive_sums(self) -> torch.Tensor:
        """P, -inf for an anchor without positives."""
        parts = [_LogSum(self.band_logits(*block)[1]) for block in self.band()]
        self.p_largest = torch.cat([part.largest for part in parts])
        self.p_total = torch.cat([part.total for part in parts])
        return torch.cat([part.value for part in parts])

    def add_positive_gradient(self, dx: Any, weights: Any) -> None:
        largest = self.p_largest
        share = _share(weights, self.p_total)
        for rows, run in self.band():
            d, p = self.band_logits(rows, run)
            m = torch.exp(p - largest[rows, None]) * share[rows, None]
            m += torch.exp(p - largest[None, run]) * share[None, run]
            m *= self.family.positive.slope(d)
            m *= self.family.distance.dot_slope(d)
            dx[rows].addmm_(m, self.x[run])

    def tiles(self) -> list[tuple[int, int]]:
        return [(i, j) for i in range(len(self.parts)) for j in range(i, len(self.parts))]

    def tile_logits(self, i: int, j: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Distances and logits of a tile, -inf where a pair is no negative."""
        xi, xj = self.parts[i], self.parts[j]
        dot = self.buffers[0, : len(xi) * len(xj)].view(len(xi), len(xj))
        d = self.family.distance.of_dot(torch.mm(xi, xj.T, out=dot))
        n = _own(self.family.negative.value(d), d)
        rows, columns = self.bounds[i], self.bounds[j]
        if i == j or self.last[i] == self.first[j]:
            n.masked_fill_(self.labels[rows, None] == self.labels[None, columns], -torch.inf)
        return d, n

    def negative_sums(self) -> torch.Tensor:
        """N, -inf for an anchor without negatives; float64 loses nothing of large logits."""
        sums = [part.new_full((len(part),), -torch.inf, dtype=torch.float64) for part in self.parts]
        for i, j in self.tiles():
            for at, part in self.tile_sums(i, j):
                sums[at] = torch.logaddexp(sums[at], part.double())
        self.n_sums = sums
        return torch.cat(sums)

    def tile_sums(self, i: int, j: int) -> list[tuple[int, torch.Tensor]]:
        """N of a tile's rows, and of its columns off the diagonal."""
        axes = [(i, 1)] if i == j else [(i, 1), (j, 0)]
        d, n = self.tile_logits(i, j)
        # One exponential serves rows and columns, where their largest logits are near enough that
        # none underflows; the gradient then uses the same shift.
        shift = float(n.max())
        if shift > -torch.inf:
            e = exp_(n.sub_(shift))
            totals = [(at, e.sum(axis)) for at, axis in axes]
            if min(float(total.min()) for _, total in totals) > 1e-20:
                self.shifts[i, j] = shift, float(d.min())
                return [(at, total.log_().add_(shift)) for at, total in totals]
            _, n = self.tile_logits(i, j)
        return [(at, torch.logsumexp(n, axis)) for at, axis in axes]

    def add_negative_gradient(self, dx: Any, weights: Any) -> None:
        size = len(self.parts[0])
        # An anchor that has none leaves nothing to a tile.
        sums = [part.masked_fill(part == -torch.inf, torch.inf) for part in self.n_sums]
        blocks = list(zip(sums, weights.split(size), dx.split(size), strict=True))
        above, slope = self.family.distance.linear_above
        for i, j in self.tiles():
            d, m = self.tile_logits(i, j)
            (sums_i, weights_i, dx_i), (sums_j, weights_j, dx_j) = blocks[i], blocks[j]
            shift, smallest = self.shifts.get((i, j), (None, -torch.inf))
            if shift is None:
                n = m.double()
                m = torch.exp(n - sums_i[:, None]) * weights_i[:, None]
                m += torch.exp(n - sums_j[None, :]) * weights_j[None, :]
                m = m.to(d.dtype)
            else:
                exp_(m.sub_(shift))
                row = torch.exp(shift - sums_i).mul_(weights_i).to(d.dtype)
                column = torch.exp(shift - sums_j).mul_(weights_j).to(d.dtype)
                both = self.buffers[1, : m.numel()].view_as(m)
                m *= torch.add(row[:, None], column[None, :], out=both)
            m *= self.family.negative.slope(d)
            linear_here = smallest > above
            if not linear_here:
                m *= self.family.distance.dot_slope(d)
            scale = slope if linear_here else 1.0
            dx_i.addmm_(m, self.parts[j], alpha=scale)
            if i != j:
                dx_j.addmm_(m.T, self.parts[i], alpha=scale)
