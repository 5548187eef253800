"""Launches the fused kernels of Pallas, on anchors and references sorted by class and padded."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from kinfold.streaming.family import Family
from kinfold.streaming.fused import tiles as sizes
from kinfold.streaming.fused.kernel import PAIRS
from kinfold.streaming.fused.pallas import kernels
from kinfold.streaming.fused.pallas.kernels import INF, PAD, Logits, Plan, Refs
from kinfold.streaming.fused.statistics import merged
from kinfold.streaming.fused.tiles import Tile, Tiles

# Compute capabilities of the GPUs that have the shared memory of a Hopper.
LARGE = (9.0, 12.0)

Blocks = list[tuple[int, int]]


class Setup(NamedTuple):
    """What a compiled graph is for; hashable."""

    family: Family
    diagonal: bool
    both: bool
    precision: str  # of float32 products, as jax.numpy.dot takes it
    tiles: Tiles
    interpret: bool


class Side(NamedTuple):
    """Anchors or references, sorted by class and padded to whole blocks."""

    x: Any  # [N, D]
    classes: Any  # int32 [N]
    positions: Any  # int32 [N]
    squares: Any  # float32 [N]
    order: Any  # int32 [n], without the padding
    block: int  # rows of a block

    def cut(self, start: Any) -> "Side":
        """The block that begins at a row."""
        parts = [jax.lax.dynamic_slice_in_dim(part, start, self.block) for part in self[:4]]
        return Side._make([*parts, *self[4:]])

    def starts(self) -> range:
        return range(0, len(self.x), self.block)

    def unsorted(self, rows: Any) -> Any:
        """Numbers of each row in the caller's order."""
        real = rows[: len(self.order)]
        return jnp.zeros_like(real).at[self.order].set(real, unique_indices=True)


def tiles_of(x: Any) -> Tiles:
    """Tiles for rows such as those of `x`, which may be traced: by the device of JAX."""
    found = sizes.tiles(x.shape[1], x.dtype.name)
    if found.given:
        return found
    device: Any = jax.config.jax_default_device or jax.devices()[0]
    capability = str(getattr(device, "compute_capability", LARGE[0]))  # of AMD's, a name
    if capability.replace(".", "").isdigit() and LARGE[0] <= float(capability) < LARGE[1]:
        tile = Tile(128, 128, min(found.width, 64), 8, 3)
    else:
        tile = Tile(64, 64, min(found.width, 32), 4, 3)
    return found._replace(forward=tile, extras=tile, backward=tile)


def sides_of(setup: Setup, primals: Any) -> tuple[Side, Side]:
    x, r, _, classes, ref_classes, first = primals
    width, block, *every = setup.tiles.width, setup.tiles.block, *setup.tiles[3:]
    whole = max(size for tile in every for size in (tile.rows, tile.columns))

    def side(x: Any, classes: Any, first: Any) -> Side:
        n = len(x)
        size = _up(-(-n // -(-n // block)), whole)
        more = _up(n, size) - n
        order = jnp.arange(n, dtype=jnp.int32)
        if setup.family is not PAIRS:  # whose classes ascend as they are
            order = jnp.argsort(classes, stable=True).astype(jnp.int32)
            x, classes = x[order], classes[order]
        rows = jnp.pad(x, ((0, more), (0, width - x.shape[1])))
        last = jnp.pad(classes, (0, more), constant_values=PAD)
        squares = jnp.sum(jnp.square(rows.astype(jnp.float32)), axis=1)
        return Side(rows, last, jnp.pad(order + first, (0, more)), squares, order, size)

    anchors = side(x, classes, 0 if first is None else first)
    return anchors, anchors if r is None else side(r, ref_classes, 0)


def _up(n: int, size: int) -> int:
    return -(-n // size) * size


def forward(setup: Setup, sides: tuple[Side, Side], scale: Any) -> list[Any]:
    """What `statistics` wants of each anchor, six times float32 [n], in the caller's order."""
    found = _sums(setup, sides, scale)
    return [sides[0].unsorted(part) for part in (*found, *_extras(setup, sides, scale, found))]


def _sums(setup: Setup, sides: tuple[Side, Side], scale: Any) -> Any:
    """Largest and total of each anchor's positives and negatives, float32 [4, N]."""
    plan, (own, other) = plan_of(setup, setup.tiles.forward), sides
    rows, columns = plan.tile.rows, plan.tile.columns

    def launched(own: Side, other: Side, m: int, bands: Any, dots: Any) -> Any:
        n = len(own.x)
        programs = n // rows
        parts = sizes.parts(programs, m // columns)
        found = pl.pallas_call(
            partial(kernels.sums, plan, m, parts),
            grid=(programs, parts),
            out_shape=[jax.ShapeDtypeStruct((parts * n,), jnp.float32)] * 4,
            out_specs=[pl.BlockSpec((rows,), lambda i, part: (part * programs + i,))] * 4,
            **options(setup, plan),
        )(dots, refs_of(own, other, scale), bands)
        return jnp.stack([part.reshape(parts, n) for part in found], 1)

    if not setup.tiles.given:
        bands = _bands(own, other, plan.tile)
        return merged(jnp, launched(own, other, len(other.order), bands, None), jnp.exp)

    def add(i: Any, j: Any, before: Any) -> Any:
        a, b = own.cut(i), other.cut(j)
        # All of it may hold positives: what a mask costs is little beside such a product.
        bands = jnp.tile(jnp.int32([0, other.block // columns]), (own.block // rows, 1))
        found = launched(a, b, other.block, bands, dot(setup, a.x, b.x.T))
        last = jax.lax.dynamic_slice_in_dim(before, i, own.block, axis=1)
        found = merged(jnp, jnp.concatenate([last[None], found]), jnp.exp)
        return jax.lax.dynamic_update_slice_in_dim(before, found, i, axis=1)

    empty = jnp.tile(jnp.float32([[-INF], [0.0], [-INF], [0.0]]), (1, len(own.x)))
    return over([(i, j) for i in own.starts() for j in other.starts()], add, empty)


def _extras(setup: Setup, sides: tuple[Side, Side], scale: Any, found: Any) -> list[Any]:
    """The extra statistic and what it pulls at the negatives, float32 [N] each."""
    plan, (own, other) = plan_of(setup, setup.tiles.extras), sides
    if plan.extra == "none":
        return [jnp.zeros(len(own.x), jnp.float32)] * 2
    rows = plan.tile.rows
    return pl.pallas_call(
        partial(kernels.extras, plan, len(other.order)),
        grid=(len(own.x) // rows,),
        out_shape=[jax.ShapeDtypeStruct((len(own.x),), jnp.float32)] * 2,
        out_specs=[pl.BlockSpec((rows,), lambda i: (i,))] * 2,
        **options(setup, plan),
    )(refs_of(own, other, scale), _bands(own, other, plan.tile), (found[0], found[2], found[3]))


def dot(setup: Setup, a: Any, b: Any) -> Any:
    """A product of a matrix library, summed in float32."""
    precision = setup.precision if a.dtype == jnp.float32 else "default"
    return jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32)


def over(blocks: Blocks, body: Callable[[Any, Any, Any], Any], value: Any) -> Any:
    """`value` after the body has seen every block: a loop where there are several."""
    if len(blocks) < 2:
        for i, j in blocks:
            value = body(i, j, value)
        return value
    starts = jnp.asarray(blocks, jnp.int32)
    return jax.lax.fori_loop(
        0, len(blocks), lambda k, v: body(starts[k, 0], starts[k, 1], v), value
    )


def plan_of(setup: Setup, tile: Tile) -> Plan:
    family = setup.family
    p, n = family.positive, family.negative
    logits = Logits(p.value, n.value, p.slope, n.slope)
    name, scaled = family.distance.name, family is PAIRS
    return Plan(logits, name, setup.diagonal, scaled, family.extra, tile)


def refs_of(own: Side, other: Side, scale: Any) -> Refs:
    both = [part for pair in zip(own[:4], other[:4], strict=True) for part in pair]
    one = jnp.ones(1, jnp.float32) if scale is None else scale.reshape(1).astype(jnp.float32)
    return Refs._make([*both, one])


def _bands(own: Side, other: Side, tile: Tile) -> Any:
    """For the rows of each program the whole tiles of columns that may hold their positives."""
    n, m = len(own.order), len(other.order)
    starts = jnp.arange(0, len(own.x), tile.rows)
    run = other.classes[:m]
    first = jnp.searchsorted(run, own.classes[jnp.minimum(starts, n - 1)])
    last = jnp.minimum(starts + tile.rows, n) - 1
    last = jnp.searchsorted(run, own.classes[last], side="right")
    start = jnp.minimum(first // tile.columns, m // tile.columns)
    stop = jnp.minimum(-(-last // tile.columns), m // tile.columns)
    return jnp.stack([start, jnp.maximum(start, stop)], 1).astype(jnp.int32)


def options(setup: Setup, plan: Plan) -> dict[str, Any]:
    params = plgpu.CompilerParams(num_warps=plan.tile.warps, num_stages=plan.tile.stages)
    return {"interpret": setup.interpret, "compiler_params": params}
