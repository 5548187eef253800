"""Tiles of the upper triangle for the compilers of JAX and TensorFlow, in `keras.ops`.

The batch is sorted by label, so that positive pairs lie in few tiles along the diagonal; a loop of
its own goes over the others, which hold negative pairs only. The batch size may be unknown while
tracing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from kinfold.core.checks import Tensor
from kinfold.streaming.family import Family
from kinfold.streaming.symmetric import tiles
from kinfold.streaming.symmetric.tiles import LogSum, Side

Sums = tuple[LogSum, LogSum]


class Grid(NamedTuple):
    """A batch sorted by label, filled up to whole tiles at its front."""

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
        blocks = -(-n // size)
        # An empty batch is one tile of rows that were filled up.
        blocks = max(blocks, 1) if isinstance(n, int) else ops.maximum(blocks, 1)
        fill = blocks * size - n
        labels = ops.pad(ops.take(y, order), [[fill, 0]])
        x = ops.pad(ops.take(x, order, axis=0), [[fill, 0], [0, 0]])
        return cls(x, labels, order, diagonal, size)

    def filled(self) -> Any:
        """How many rows at the front were filled up."""
        return ops.shape(self.labels)[0] - ops.shape(self.order)[0]

    def fill(self, values: Tensor, value: float) -> Tensor:
        """Sort values [n] as the batch is, and fill them up with `value`."""
        return ops.pad(ops.take(values, self.order), [[self.filled(), 0]], constant_values=value)

    def restore(self, values: Tensor) -> Tensor:
        """Undo the sorting and the filling up of values [blocks * size, ...]."""
        return ops.take(values, self.filled() + ops.argsort(self.order), axis=0)

    def at(self, values: Tensor, i: Tensor, axis: int = 0) -> Tensor:
        """The part of `values` that belongs to block `i`."""
        start, shape = [0] * len(values.shape), list(values.shape)
        start[axis], shape[axis] = i * self.size, self.size
        return ops.slice(values, start, shape)

    def put(self, values: Tensor, i: Tensor, part: Tensor, axis: int = 0) -> Tensor:
        start: list[Any] = [0] * len(part.shape)
        start[axis] = i * self.size
        return ops.slice_update(values, start, part)

    def masks(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        rows = ops.expand_dims(i * self.size + ops.arange(self.size, dtype="int32"), 1)
        columns = ops.expand_dims(j * self.size + ops.arange(self.size, dtype="int32"), 0)
        real = ops.logical_and(rows >= self.filled(), columns >= self.filled())
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
        start: Any,
        mixed: Callable[..., Any],
        negatives_only: Callable[..., Any],
        finish: Callable[..., Any],
        carry: Any,
    ) -> Any:
        """Go over the tiles j >= i by either function, (i, j, row, carry) -> row, carry.

        Each row of tiles begins with `start` as its `row`, and `finish(i, row, carry)` puts that
        into the carry at its end. Its mixed tiles, those that may hold positive pairs or rows that
        were filled up, come first.
        """
        blocks = ops.shape(self.labels)[0] // self.size
        firsts = ops.reshape(self.labels, (-1, self.size))[:, 0]

        def of_row(i: Tensor, carry: Any) -> Any:
            last = self.at(self.labels, i)[-1]
            filled = ops.logical_and(ops.equal(i, 0), self.filled() > 0)
            meets = 1 + ops.sum(ops.cast(firsts[1:] <= last, "int32"))
            until = ops.where(filled, blocks, ops.maximum(meets, i + 1))
            state = ops.fori_loop(i, until, lambda j, state: mixed(i, j, *state), (start, carry))
            return finish(
                i,
                *ops.fori_loop(until, blocks, lambda j, state: negatives_only(i, j, *state), state),
            )

        return ops.fori_loop(0, blocks, of_row, carry)


def sums(family: Family, grid: Grid) -> tuple[LogSum, LogSum]:
    """P and N of each anchor of the grid."""
    column = grid.x[:, 0]
    empty = LogSum(ops.full_like(column, -float("inf")), ops.zeros_like(column))
    nothing = LogSum(*(grid.at(part, 0) for part in empty))

    def mixed(i: Tensor, j: Tensor, row: Any, carry: Any) -> Any:
        rows, columns = tiles.mixed_sums(
            family, grid.at(grid.x, i), grid.at(grid.x, j), *grid.masks(i, j)
        )
        twice = ops.equal(i, j)  # on the diagonal, rows and columns are the same anchors

        def once(part: LogSum) -> LogSum:
            return LogSum(*(ops.where(twice, a, b) for a, b in zip(nothing, part, strict=True)))

        row = tuple(total.merged(part) for total, part in zip(row, rows, strict=True))
        return row, tuple(
            add(total, j, once(part)) for total, part in zip(carry, columns, strict=True)
        )

    def negatives_only(i: Tensor, j: Tensor, row: Any, carry: Any) -> Any:
        ni, nj = tiles.negatives_only_sums(family, grid.at(grid.x, i), grid.at(grid.x, j))
        return (row[0], row[1].merged(ni)), (carry[0], add(carry[1], j, nj))

    def finish(i: Tensor, row: Any, carry: Any) -> Any:
        return tuple(add(total, i, part) for total, part in zip(carry, row, strict=True))

    def add(total: LogSum, at: Tensor, part: LogSum) -> LogSum:
        merged = LogSum(*(grid.at(values, at) for values in total)).merged(part)
        return LogSum(
            *(grid.put(values, at, new) for values, new in zip(total, merged, strict=True))
        )

    return grid.over_tiles((nothing, nothing), mixed, negatives_only, finish, (empty, empty))


def valid_anchors(sums: Sums) -> Tensor:
    """Which anchors have both kinds of pairs, boolean."""
    positive, negative = (part.largest != -float("inf") for part in sums)
    return ops.logical_and(positive, negative)


def values(sums: Sums, valid: Tensor) -> tuple[Tensor, Tensor]:
    """P and N as numbers, 0 for invalid anchors."""
    zero = ops.zeros_like(sums[0].total)
    one = ops.ones_like(zero)
    positive, negative = (
        LogSum(ops.where(valid, part.largest, zero), ops.where(valid, part.total, one)).value()
        for part in sums
    )
    return positive, negative


def losses(family: Family, values: tuple[Tensor, Tensor], valid: Tensor) -> Tensor:
    """Loss of each anchor, 0 for invalid ones."""
    return ops.where(valid, family.combine(*values), ops.zeros_like(values[0]))


def combined(family: Family, sums: Sums) -> tuple[Tensor, Tensor]:
    """Loss of each anchor, and which of them are valid."""
    valid = valid_anchors(sums)
    return losses(family, values(sums, valid), valid), valid


def side_of(sums: Sums, valid: Tensor, weights: Any) -> Side:
    """What a gradient takes of each anchor, for w dcombine/dP and w dcombine/dN in `weights`."""
    nothing = ops.full_like(sums[0].largest, float("inf"))
    one = ops.ones_like(nothing)
    return Side(
        *(ops.where(valid, part.largest, nothing) for part in sums),
        *(w / ops.where(valid, part.total, one) for w, part in zip(weights, sums, strict=True)),
    )


def gradient(family: Family, grid: Grid, side: Side) -> Tensor:
    """dx in the grid's order."""
    # Gathered transposed: XLA multiplies by m.T at half the rate of xi.T @ m.
    transposed = ops.transpose(grid.x)

    def add(dx: Tensor, at: Tensor, part: Tensor) -> Tensor:
        return grid.put(dx, at, grid.at(dx, at, axis=1) + part, axis=1)

    def pull(i: Tensor, j: Tensor, row: Tensor, dx: Tensor, m: Tensor, twice: Any) -> Any:
        part = grid.at(transposed, i, axis=1) @ m
        if twice is not None:
            part = ops.where(twice, ops.zeros_like(part), part)
        return row + m @ grid.at(grid.x, j), add(dx, j, part)

    def block(i: Tensor) -> tuple[Tensor, Side]:
        return grid.at(grid.x, i), Side(*(grid.at(part, i) for part in side))

    def mixed(i: Tensor, j: Tensor, row: Tensor, dx: Tensor) -> Any:
        (xi, rows), (xj, columns) = block(i), block(j)
        m = tiles.mixed_gradient(family, xi, xj, rows, columns, *grid.masks(i, j))
        return pull(i, j, row, dx, m, ops.equal(i, j))

    def negatives_only(i: Tensor, j: Tensor, row: Tensor, dx: Tensor) -> Any:
        (xi, rows), (xj, columns) = block(i), block(j)
        return pull(
            i, j, row, dx, tiles.negatives_only_gradient(family, xi, xj, rows, columns), None
        )

    def finish(i: Tensor, row: Tensor, dx: Tensor) -> Tensor:
        return add(dx, i, ops.transpose(row))

    start = ops.zeros_like(grid.at(grid.x, 0))
    return ops.transpose(
        grid.over_tiles(start, mixed, negatives_only, finish, ops.zeros_like(transposed))
    )
