"""The fused kernels in Pallas: those of `triton`, traced from the loss's own functions.

`Refs` hold all anchors and references, sorted by class and padded to whole tiles; a program loads
what it needs of them. Logits are natural ones here, as the loss writes them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from kinfold.core.numerics import NOISE
from kinfold.streaming.fused.tiles import Tile

INF = float("inf")


class Logits(NamedTuple):
    positive: Callable[[Any], Any]
    negative: Callable[[Any], Any]
    positive_slope: Callable[[Any], Any]
    negative_slope: Callable[[Any], Any]


class Plan(NamedTuple):
    """What the kernels of a loss are made of."""

    logits: Logits
    distance: str
    diagonal: bool  # whether the reference at an anchor's own position may be its positive
    scaled: bool
    extra: str
    tf32: bool
    tile: Tile


class Refs(NamedTuple):
    """What both kernels take: in the order of `triton.forward`."""

    x: Any
    r: Any
    classes: Any
    ref_classes: Any
    positions: Any
    ref_positions: Any
    squares: Any
    ref_squares: Any
    bands: Any
    scale: Any


def forward(plan: Plan, m: int, refs: Refs, *out: Any) -> None:
    """Largest and total of positives, of negatives, the extra and its pull, into `out`."""
    rows, columns = plan.tile.rows, plan.tile.columns
    at = pl.ds(pl.program_id(0) * rows, rows)
    start, stop = refs.bands[pl.program_id(0), 0], refs.bands[pl.program_id(0), 1]
    nothing = jnp.zeros((rows,), jnp.float32)

    def clean(i: Any, sums: Any) -> Any:
        d = _distances(plan, refs, at, pl.ds(_clean(i, start, stop) * columns, columns))
        return _more(plan.logits.negative(d), sums)

    def band(j: Any, sums: Any) -> Any:
        first = _mixed(j, stop, m, columns)
        d = _distances(plan, refs, at, pl.ds(first, columns))
        positive, negative = _pairs(plan, refs, at, first, m)
        of_positives, of_negatives = sums
        return (
            _more(jnp.where(positive, plan.logits.positive(d), -INF), of_positives),
            _more(jnp.where(negative, plan.logits.negative(d), -INF), of_negatives),
        )

    def extra(j: Any, sums: Any) -> Any:
        first = _mixed(j, stop, m, columns)
        logit = plan.logits.positive(_distances(plan, refs, at, pl.ds(first, columns)))
        positive, _ = _pairs(plan, refs, at, first, m)
        total, pull = sums
        if plan.extra == "mean":
            part = jnp.where(positive, logit - p[0][:, None], 0.0)
            return total + jnp.sum(part, axis=1), pull
        gap = jnp.where(positive, (n[0][:, None] - logit) + log_total[:, None], 0.0)
        e = jnp.exp(-jnp.abs(gap))
        series = e * (1.0 - e * (0.5 - e * (1.0 / 3.0)))  # log(1 + e) of a small e
        softplus = jnp.maximum(gap, 0.0) + jnp.where(e < 0.02, series, jnp.log(1.0 + e))
        sigmoid = jnp.where(gap > 0.0, 1.0, e) / (1.0 + e)
        return (
            total + jnp.sum(jnp.where(positive, softplus, 0.0), axis=1),
            pull + jnp.sum(jnp.where(positive, sigmoid, 0.0), axis=1),
        )

    empty = nothing - INF, nothing
    n = jax.lax.fori_loop(0, m // columns - (stop - start), clean, empty)
    rest = stop + (-(-m // columns) - m // columns)
    p, n = jax.lax.fori_loop(start, rest, band, (empty, n))
    found = (*p, *n, nothing, nothing)
    if plan.extra != "none":
        log_total = jnp.log(jnp.where(n[1] > 0.0, n[1], 1.0))
        found = (*p, *n, *jax.lax.fori_loop(start, rest, extra, (nothing, nothing)))
    for ref, value in zip(out, found, strict=True):
        ref[:] = value


def backward(
    plan: Plan, sides: tuple[bool, bool], m: int, refs: Refs, terms: Any, ref_terms: Any, out: Any
) -> None:
    """Gradient of the rows, whose anchors and whose columns' are of the loss as `sides` says.

    `terms` and `ref_terms` are six arrays each: shift and weight of positives, of negatives, weight
    and N of the extra.
    """
    rows, columns, width = plan.tile.rows, plan.tile.columns, plan.tile.part
    at, part = pl.ds(pl.program_id(0) * rows, rows), pl.ds(pl.program_id(1) * width, width)
    start, stop = refs.bands[pl.program_id(0), 0], refs.bands[pl.program_id(0), 1]
    dtype, square = refs.x.dtype, "euclidean" in plan.distance

    def share(logit: Any, ref_at: Any, first: int) -> Any:
        g = jnp.zeros_like(logit)
        for wanted, side, where, axis in ((0, terms, at, 1), (1, ref_terms, ref_at, 0)):
            if sides[wanted]:
                shift, weight = (_load(side[first + i], where) for i in (0, 1))
                e = jnp.exp(logit - jnp.expand_dims(shift, axis))
                g += e * jnp.expand_dims(weight, axis)
                if first == 0 and plan.extra != "none":
                    own = jnp.expand_dims(_load(side[4], where), axis)
                    if plan.extra == "each":
                        sums = jnp.expand_dims(_load(side[5], where), axis)
                        own = -own / (1.0 + jnp.exp(logit - sums))
                    g += own
        return g

    def of_negatives(d: Any, ref_at: Any, negative: Any = None) -> Any:
        logit = plan.logits.negative(d)
        logit = logit if negative is None else jnp.where(negative, logit, -INF)
        return share(logit, ref_at, 2) * plan.logits.negative_slope(d)

    def add(sums: Any, g: Any, d: Any, ref_at: Any) -> Any:
        gradient, total = sums
        g = _of_dots(plan, g, d)
        if dtype == jnp.float16:  # finite, also where an unbounded slope is not
            g = jnp.clip(g, -65504.0, 65504.0)
        g = g.astype(dtype)
        if square:
            total += jnp.sum(g.astype(jnp.float32), axis=1)
        r = _load(refs.r, (ref_at, part))
        return gradient + plgpu.dot(g, r, allow_tf32=plan.tf32).astype(jnp.float32), total

    def clean(i: Any, sums: Any) -> Any:
        ref_at = pl.ds(_clean(i, start, stop) * columns, columns)
        d = _distances(plan, refs, at, ref_at)
        return add(sums, of_negatives(d, ref_at), d, ref_at)

    def band(j: Any, sums: Any) -> Any:
        first = _mixed(j, stop, m, columns)
        ref_at = pl.ds(first, columns)
        d = _distances(plan, refs, at, ref_at)
        positive, negative = _pairs(plan, refs, at, first, m)
        p = jnp.where(positive, plan.logits.positive(d), -INF)
        p = share(p, ref_at, 0) * plan.logits.positive_slope(d)
        n = of_negatives(d, ref_at, negative)
        return add(sums, jnp.where(positive, p, jnp.where(negative, n, 0.0)), d, ref_at)

    sums = jnp.zeros((rows, width), jnp.float32), jnp.zeros((rows,), jnp.float32)
    sums = jax.lax.fori_loop(0, m // columns - (stop - start), clean, sums)
    rest = stop + (-(-m // columns) - m // columns)
    gradient, total = jax.lax.fori_loop(start, rest, band, sums)
    if square:
        own = _load(refs.x, (at, part)).astype(jnp.float32)
        gradient = 2.0 * (total[:, None] * own - gradient)
    if plan.scaled:  # only now: a factor would only be rounded where G is
        gradient *= refs.scale[0]
    out[:, :] = gradient.astype(out.dtype)


def _load(ref: Any, at: Any) -> Any:
    return plgpu.load(ref.at[at])


def _distances(plan: Plan, refs: Refs, at: Any, ref_at: Any) -> Any:
    """Distances of a tile in float32."""
    depth, width = plan.tile.depth, refs.x.shape[1]

    def add(i: Any, dot: Any) -> Any:
        part = pl.ds(i * depth, depth)
        a, b = _load(refs.x, (at, part)), _load(refs.r, (ref_at, part))
        return dot + plgpu.dot(a, b, trans_b=True, allow_tf32=plan.tf32).astype(jnp.float32)

    # A loop of the GPU's: in a row of products, the tiles of all would be in shared memory at once.
    dot = jnp.zeros((plan.tile.rows, plan.tile.columns), jnp.float32)
    dot = jax.lax.fori_loop(0, width // depth, add, dot)
    if plan.distance == "inner_product":
        return dot * refs.scale[0] if plan.scaled else dot
    if plan.distance == "cosine":
        d = 1.0 - dot
        return jnp.where(d <= NOISE["float32"], 0.0, d)  # NaN stays
    squares = _load(refs.squares, at)[:, None], _load(refs.ref_squares, ref_at)[None, :]
    d = jnp.maximum(squares[0] - 2.0 * dot + squares[1], 0.0)
    return jnp.sqrt(d) if plan.distance == "euclidean" else d


def _of_dots(plan: Plan, g: Any, d: Any) -> Any:
    """From distances to dot products, or to squared distances."""
    some = d > 0.0
    if plan.distance == "cosine":
        return jnp.where(some, -g, 0.0)
    if plan.distance == "squared_euclidean":
        return jnp.where(some, g, 0.0)
    if plan.distance == "euclidean":
        return jnp.where(some, 0.5 * g / jnp.where(some, d, 1.0), 0.0)
    return g


def _clean(i: Any, start: Any, stop: Any) -> Any:
    return jnp.where(i < start, i, i + (stop - start))


def _mixed(j: Any, stop: Any, m: int, columns: int) -> Any:
    return jnp.where(j < stop, j, m // columns) * columns


def _pairs(plan: Plan, refs: Refs, at: Any, first: Any, m: int) -> tuple[Any, Any]:
    ref_at = pl.ds(first, plan.tile.columns)
    same = _load(refs.classes, at)[:, None] == _load(refs.ref_classes, ref_at)[None, :]
    real = (first + jnp.arange(plan.tile.columns) < m)[None, :]
    positive, negative = same & real, ~same & real
    if not plan.diagonal:
        own = _load(refs.positions, at)[:, None] == _load(refs.ref_positions, ref_at)[None, :]
        positive = positive & ~own
    return positive, negative


def _more(logit: Any, sums: Any) -> Any:
    """The largest logit of each row and the sum of exp(logit - largest), with a tile's."""
    largest, total = sums
    new = jnp.maximum(largest, jnp.max(logit, axis=1))
    at = jnp.where(new == -INF, 0.0, new)
    total = total * jnp.exp(largest - at) + jnp.sum(jnp.exp(logit - at[:, None]), axis=1)
    return new, total
