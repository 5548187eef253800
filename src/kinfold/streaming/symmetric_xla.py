"""Tiles of the upper triangle for the compilers of JAX and TensorFlow, in `keras.ops`.

The batch is sorted by label, so that positive pairs lie in few tiles along the diagonal; the others
take a branch that knows of negative pairs only. The batch size may be unknown while tracing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from kinfold.checks import Tensor
from kinfold.streaming import tiles
from kinfold.streaming.tiles import Family, Side


class Grid(NamedTuple):
    """A batch sorted by label and filled up to whole tiles."""

    x: Tensor  # [blocks * size, d]
    labels: Tensor  # [blocks * size]
    order: Tensor  # [n], where each row came from
    diagonal: bool
    size: Any  # rows and columns of a tile

    @classmethod
    def of(cls, x: Tensor, y: Tensor, diagonal: bool, size: int) -> "Grid":
        n = ops.shape(y)[0]
        size = min(size, n) if isinstance(n, int) else ops.minimum(size, ops.maximum(n, 1))
        order = ops.argsort(y)
        fill = -(-n // size) * size - n
        labels = ops.pad(ops.take(y, order), [[0, fill]])
        x = ops.pad(ops.take(x, order, axis=0), [[0, fill], [0, 0]])
        return cls(x, labels, order, diagonal, size)

    def fill(self, values: Tensor, value: float) -> Tensor:
        """Sort values [n] as the batch is, and fill them up with `value`."""
        values = ops.take(values, self.order)
        missing = ops.shape(self.labels)[0] - ops.shape(values)[0]
        return ops.pad(values, [[0, missing]], constant_values=value)

    def restore(self, values: Tensor) -> Tensor:
        """Undo the sorting and the filling up of values [blocks * size, ...]."""
        return ops.take(values, ops.argsort(self.order), axis=0)

    def at(self, values: Tensor, i: Tensor) -> Tensor:
        """The part of `values` that belongs to block `i`."""
        rest = tuple(values.shape[1:])
        return ops.slice(values, (i * self.size,) + (0,) * len(rest), (self.size, *rest))

    def put(self, values: Tensor, i: Tensor, part: Tensor) -> Tensor:
        return ops.slice_update(values, (i * self.size,) + (0,) * (len(part.shape) - 1), part)

    def masks(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        rows = ops.expand_dims(i * self.size + ops.arange(self.size, dtype="int32"), 1)
        columns = ops.expand_dims(j * self.size + ops.arange(self.size, dtype="int32"), 0)
        n = ops.shape(self.order)[0]
        real = ops.logical_and(rows < n, columns < n)
        same = ops.equal(
            ops.expand_dims(self.at(self.labels, i), 1), ops.expand_dims(self.at(self.labels, j), 0)
        )
        negative = ops.logical_and(real, ops.logical_not(same))
        positive = ops.logical_and(real, same)
        if not self.diagonal:
            positive = ops.logical_and(positive, ops.not_equal(rows, columns))
        return positive, negative

    def over_tiles(
        self,
        start: Callable[..., Any],
        body: Callable[..., Any],
        finish: Callable[..., Any],
        carry: Any,
    ) -> Any:
        """Run `body(i, j, row, carry) -> row, carry` over the tiles j >= i.

        `start(i)` is what `row` begins with in each row of tiles, and `finish(i, row, carry)` puts
        it into the carry at the row's end.
        """
        blocks = ops.shape(self.labels)[0] // self.size

        def of_row(i: Tensor, carry: Any) -> Any:
            def of_tile(j: Tensor, state: Any) -> Any:
                return body(i, j, *state)

            return finish(i, *ops.fori_loop(i, blocks, of_tile, (start(i), carry)))

        return ops.fori_loop(0, blocks, of_row, carry)

    def is_mixed(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether a tile may hold positive pairs or rows that were filled up."""
        meets = ops.equal(self.at(self.labels, i)[-1], self.at(self.labels, j)[0])
        filled = (j + 1) * self.size > ops.shape(self.order)[0]
        return ops.logical_or(ops.logical_or(ops.equal(i, j), meets), filled)


def sums(family: Family, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """P and N of each anchor of the grid, -inf where there is none, and whether it is valid."""
    infinite = ops.full_like(grid.x[:, 0], -float("inf"))
    nothing = grid.at(infinite, 0)

    def start(i: Tensor) -> Any:
        return nothing, nothing

    def body(i: Tensor, j: Tensor, row: Any, carry: Any) -> Any:
        xi, xj = grid.at(grid.x, i), grid.at(grid.x, j)

        def clean() -> Any:
            ni, nj = tiles.clean_sums(family, xi, xj)
            return nothing, ni, nothing, nj

        def mixed() -> Any:
            (pi, ni), (pj, nj) = tiles.mixed_sums(family, xi, xj, *grid.masks(i, j))
            twice = ops.equal(i, j)  # on the diagonal, rows and columns are the same anchors
            return pi, ni, ops.where(twice, nothing, pj), ops.where(twice, nothing, nj)

        pi, ni, pj, nj = ops.cond(grid.is_mixed(i, j), mixed, clean)
        carry = tuple(
            grid.put(total, j, _logaddexp(grid.at(total, j), part))
            for total, part in zip(carry, (pj, nj), strict=True)
        )
        return (_logaddexp(row[0], pi), _logaddexp(row[1], ni)), carry

    def finish(i: Tensor, row: Any, carry: Any) -> Any:
        return tuple(
            grid.put(total, i, _logaddexp(grid.at(total, i), part))
            for total, part in zip(carry, row, strict=True)
        )

    positive, negative = grid.over_tiles(start, body, finish, (infinite, infinite))
    valid = ops.logical_and(positive > -float("inf"), negative > -float("inf"))
    return positive, negative, valid


def losses(family: Family, sums: Any, valid: Tensor) -> Tensor:
    """Loss of each anchor, from its sums where they are valid."""
    zero = ops.zeros_like(sums[0])
    return ops.where(valid, family.combine(*(ops.where(valid, s, zero) for s in sums)), zero)


def gradient(family: Family, grid: Grid, sums: Any, valid: Tensor, weights: Any) -> Tensor:
    """dx in the grid's order, for a = w dcombine/dP and b = w dcombine/dN in `weights`."""
    nothing = ops.full_like(grid.x[:, 0], float("inf"))  # an invalid anchor's exponentials
    side = Side(*(ops.where(valid, s, nothing) for s in sums), *weights)

    zeros = ops.zeros_like(grid.x)

    def start(i: Tensor) -> Tensor:
        return grid.at(zeros, 0)

    def body(i: Tensor, j: Tensor, row: Tensor, dx: Tensor) -> Any:
        xi, xj = grid.at(grid.x, i), grid.at(grid.x, j)
        rows, columns = (Side(*(grid.at(part, at) for part in side)) for at in (i, j))

        def clean() -> Tensor:
            return tiles.clean_gradient(family, xi, xj, rows, columns)

        def mixed() -> Tensor:
            return tiles.mixed_gradient(family, xi, xj, rows, columns, *grid.masks(i, j))

        m = ops.cond(grid.is_mixed(i, j), mixed, clean)
        part = ops.transpose(m) @ xi
        part = ops.where(ops.equal(i, j), ops.zeros_like(part), part)
        return row + m @ xj, grid.put(dx, j, grid.at(dx, j) + part)

    def finish(i: Tensor, row: Tensor, dx: Tensor) -> Tensor:
        return grid.put(dx, i, grid.at(dx, i) + row)

    return grid.over_tiles(start, body, finish, zeros)


def _logaddexp(a: Tensor, b: Tensor) -> Tensor:
    largest = ops.where(a > b, a, b)
    largest = ops.where(largest > -float("inf"), largest, ops.zeros_like(largest))
    return largest + ops.log(ops.exp(a - largest) + ops.exp(b - largest))
