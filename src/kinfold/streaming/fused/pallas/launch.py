"""Launches the fused kernels of Pallas, on anchors and references sorted by class and padded."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from kinfold.streaming.family import Family
from kinfold.streaming.fused.kernel import PAIRS
from kinfold.streaming.fused.pallas import kernels
from kinfold.streaming.fused.pallas.kernels import INF, Logits, Plan, Refs
from kinfold.streaming.fused.tiles import Tile, tiles


class Setup(NamedTuple):
    """What a compiled graph is for; hashable."""

    family: Family
    diagonal: bool
    both: bool
    tf32: bool
    interpret: bool


class Side(NamedTuple):
    x: Any  # padded to whole tiles
    classes: Any
    order: Any
    squares: Any
    first: Any = 0  # where the first of them lies in the whole batch


def plan_of(setup: Setup, x: Any, kernel: int) -> Plan:
    sizes = tiles(x.shape[1], x.dtype.name, "ieee", 0)
    family = setup.family
    both = family.positive, family.negative
    logits = Logits(*(logit.value for logit in both), *(logit.slope for logit in both))
    tile: Tile = (sizes.forward, sizes.backward)[kernel]
    scaled = family is PAIRS
    return Plan(
        logits, family.distance.name, setup.diagonal, scaled, family.extra, setup.tf32, tile
    )


def sides_of(setup: Setup, plan: Plan, primals: Any) -> tuple[Side, Side]:
    x, r, _, classes, ref_classes, first = primals
    width = tiles(x.shape[1], x.dtype.name, "ieee", 0).width
    whole = max(plan.tile.rows, plan.tile.columns)

    def side(x: Any, classes: Any, first: Any = 0) -> Side:
        order = jnp.argsort(classes, stable=True).astype(jnp.int32)
        more = -len(x) % whole
        rows = jnp.pad(x[order], ((0, more), (0, width - x.shape[1])))
        last = jnp.pad(classes[order], (0, more), constant_values=2**31 - 1)
        squares = jnp.sum(jnp.square(rows.astype(jnp.float32)), axis=1)
        return Side(rows, last, order, squares, first)

    anchors = side(x, classes, 0 if first is None else first)
    return anchors, anchors if r is None else side(r, ref_classes)


def _refs(plan: Plan, sides: tuple[Side, Side], scale: Any) -> Refs:
    """The arrays that become the kernels' `Refs`."""
    own, other = sides
    n, m = (len(side.order) for side in sides)
    rows, columns = plan.tile.rows, plan.tile.columns
    starts = jnp.arange(0, len(own.x), rows)
    run = other.classes[:m]
    first = jnp.searchsorted(run, own.classes[jnp.minimum(starts, n - 1)])
    last = jnp.searchsorted(run, own.classes[jnp.minimum(starts + rows, n) - 1], side="right")
    start = jnp.minimum(first // columns, m // columns)
    stop = jnp.maximum(start, jnp.minimum(-(-last // columns), m // columns))
    one = jnp.ones(1, jnp.float32) if scale is None else scale.reshape(1).astype(jnp.float32)
    bands = jnp.stack([start, stop], 1).astype(jnp.int32)
    arrays: list[Any] = []
    for one_side, other_side in zip(*map(_arrays, sides), strict=True):
        arrays += one_side, other_side
    return Refs._make([*arrays, bands, one])


def _arrays(side: Side) -> tuple[Any, ...]:
    positions = jnp.pad(side.order + side.first, (0, len(side.x) - len(side.order)))
    return side.x, side.classes, positions, side.squares


def forward(setup: Setup, plan: Plan, sides: tuple[Side, Side], scale: Any) -> Any:
    refs, rows, (own, other) = _refs(plan, sides, scale), plan.tile.rows, sides
    m = len(other.order)

    def kernel(*args: Any) -> None:
        kernels.forward(plan, m, Refs(*args[: len(refs)]), *args[len(refs) :])

    out = pl.pallas_call(
        kernel,
        grid=(len(own.x) // rows,),
        out_shape=[jax.ShapeDtypeStruct((len(own.x),), jnp.float32)] * 6,
        out_specs=[pl.BlockSpec((rows,), lambda i: (i,))] * 6,
        **_options(setup, plan),
    )(*refs)
    return [
        jnp.zeros(len(own.order), jnp.float32).at[own.order].set(o[: len(own.order)]) for o in out
    ]


def backward(
    setup: Setup,
    plan: Plan,
    sides: tuple[Side, Side],
    terms: tuple[Any, Any],
    of: tuple[bool, bool],
    scale: Any,
    factor: Any,
) -> Any:
    refs, tile, (own, other) = _refs(plan, sides, scale), plan.tile, sides
    m, n, count = len(other.order), len(own.order), len(refs)

    def kernel(*args: Any) -> None:
        parts = args[count : count + 6], args[count + 6 : count + 12]
        kernels.backward(plan, of, m, Refs(*args[:count]), *parts, args[-1])

    arrays = []
    for wanted, side, values in zip(of, sides, terms, strict=True):
        for value, fill in zip(values, (INF, 0.0, INF, 0.0, 0.0, INF), strict=True):
            part = value[side.order] if wanted else jnp.zeros(len(side.order), jnp.float32)
            more = (0, len(side.x) - len(side.order))
            arrays.append(jnp.pad(part, more, constant_values=fill))
    width = own.x.shape[1]
    out = pl.pallas_call(
        kernel,
        grid=(len(own.x) // tile.rows, width // tile.part),
        out_shape=jax.ShapeDtypeStruct(own.x.shape, jnp.float32),
        out_specs=pl.BlockSpec((tile.rows, tile.part), lambda i, j: (i, j)),
        **_options(setup, plan),
    )(*refs, *arrays)
    gradient = (out[:n] * factor).astype(own.x.dtype)
    return jnp.zeros_like(gradient).at[own.order].set(gradient)


def _options(setup: Setup, plan: Plan) -> dict[str, Any]:
    params = plgpu.CompilerParams(num_warps=plan.tile.warps, num_stages=plan.tile.stages)
    return {"interpret": setup.interpret, "compiler_params": params}
