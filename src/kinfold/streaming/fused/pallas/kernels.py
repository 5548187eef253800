"""The fused kernels in Pallas: those of `triton`, traced from the loss's own functions.

`Refs` hold a block of anchors and references, sorted by class and padded to whole tiles; a program
loads what it needs of them. Padding has the class PAD, and no pair with it counts. Logits are
natural ones here, as the loss writes them.
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

PAD = 2**31 - 1  # the last of all int32, so that classes still ascend


class Logits(NamedTuple):
    positive: Callable[[Any], Any]
    negative: Callable[[Any], Any]
    positive_slope: Callable[[Any], Any]
    negative_slope: Callable[[Any], Any]


class Plan(NamedTuple):
    """What a kernel of a loss is made of."""

    logits: Logits
    distance: str
    diagonal: bool  # whether the reference at an anchor's own position may be its positive
    scaled: bool
    extra: str
    tile: Tile


class Refs(NamedTuple):
    """What every kernel takes: in the order of `triton.forward`."""

    x: Any
    r: Any
    classes: Any
    ref_classes: Any
    positions: Any
    ref_positions: Any
    squares: Any
    ref_squares: Any
    scale: Any


def sums(plan: Plan, m: int, parts: int, dots: Any, refs: Refs, bands: Any, *out: Any) -> None:
    """Largest and total of positives and of negatives, over one part of `m` references.

    `dots` are the products where they were taken before, else None.
    """
    rows, columns = plan.tile.rows, plan.tile.columns
    at = pl.ds(pl.program_id(0) * rows, rows)
    start, stop = bands[pl.program_id(0), 0], bands[pl.program_id(0), 1]
    nothing = jnp.zeros((rows,), jnp.float32)
    empty = nothing - INF, nothing

    def clean(i: Any, found: Any) -> Any:
        first = jnp.where(i < start, i, i + (stop - start)) * columns
        d = _distances(plan, dots, refs, at, pl.ds(first, columns))
        return _more(plan.logits.negative(d), found)

    def band(j: Any, found: Any) -> Any:
        ref_at = _mixed(j, stop, m, columns)
        d = _distances(plan, dots, refs, at, ref_at)
        positive, negative = _pairs(plan, refs, at, ref_at)
        of_positives, of_negatives = found
        return (
            _more(jnp.where(positive, plan.logits.positive(d), -INF), of_positives),
            _more(jnp.where(negative, plan.logits.negative(d), -INF), of_negatives),
        )

    def share(count: Any) -> tuple[Any, Any]:
        part = pl.program_id(1)
        return jax.lax.div(part * count, parts), jax.lax.div((part + 1) * count, parts)

    n = jax.lax.fori_loop(*share(m // columns - (stop - start)), clean, empty)
    first, last = share(stop - start + (-(-m // columns) - m // columns))
    p, n = jax.lax.fori_loop(start + first, start + last, band, (empty, n))
    for ref, value in zip(out, (*p, *n), strict=True):
        ref[:] = value


def extras(plan: Plan, m: int, refs: Refs, bands: Any, stats: Any, *out: Any) -> None:
    """The extra statistic and its pull, from the band.

    `stats` are the largest logit of positives, that of negatives, and the total of negatives.
    """
    rows, columns = plan.tile.rows, plan.tile.columns
    at = pl.ds(pl.program_id(0) * rows, rows)
    start, stop = bands[pl.program_id(0), 0], bands[pl.program_id(0), 1]
    p_largest, n_largest, n_total = (_load(ref, at) for ref in stats)
    log_total = jnp.log(jnp.where(n_total > 0.0, n_total, 1.0))

    def band(j: Any, found: Any) -> Any:
        ref_at = _mixed(j, stop, m, columns)
        logit = plan.logits.positive(_distances(plan, None, refs, at, ref_at))
        positive, _ = _pairs(plan, refs, at, ref_at)
        total, pull = found
        if plan.extra == "mean":
            part = jnp.where(positive, logit - p_largest[:, None], 0.0)
            return total + jnp.sum(part, axis=1), pull
        gap = jnp.where(positive, (n_largest[:, None] - logit) + log_total[:, None], 0.0)
        e = jnp.exp(-jnp.abs(gap))
        series = e * (1.0 - e * (0.5 - e * (1.0 / 3.0)))  # log(1 + e) of a small e
        softplus = jnp.maximum(gap, 0.0) + jnp.where(e < 0.02, series, jnp.log(1.0 + e))
        sigmoid = jnp.where(gap > 0.0, 1.0, e) / (1.0 + e)
        return (
            total + jnp.sum(jnp.where(positive, softplus, 0.0), axis=1),
            pull + jnp.sum(jnp.where(positive, sigmoid, 0.0), axis=1),
        )

    nothing = jnp.zeros((rows,), jnp.float32)
    rest = stop + (-(-m // columns) - m // columns)
    found = jax.lax.fori_loop(start, rest, band, (nothing, nothing))
    for ref, value in zip(out, found, strict=True):
        ref[:] = value


def derivatives(
    plan: Plan, of: tuple[bool, bool], dots: Any, refs: Refs, terms: Any, ref_terms: Any, out: Any
) -> None:
    """M of a tile: the derivatives with respect to dot products, or to squared distances.

    `of` says which sides are anchors of the loss. `terms` and `ref_terms` are [6, n]: shift and
    weight of positives, of negatives, weight and N of the extra.
    """
    rows, columns = plan.tile.rows, plan.tile.columns
    at, ref_at = (pl.ds(pl.program_id(i) * size, size) for i, size in ((0, rows), (1, columns)))
    d = _distances(plan, dots, refs, at, ref_at)

    def share(logit: Any, first: int) -> Any:
        g = jnp.zeros_like(logit)
        for wanted, side, where, axis in ((of[0], terms, at, 1), (of[1], ref_terms, ref_at, 0)):
            if wanted:
                shift, weight = (jnp.expand_dims(side[first + i, where], axis) for i in (0, 1))
                g += jnp.exp(logit - shift) * weight
                if first == 0 and plan.extra != "none":
                    own = jnp.expand_dims(side[4, where], axis)
                    if plan.extra == "each":
                        negatives = jnp.expand_dims(side[5, where], axis)
                        own = -own / (1.0 + jnp.exp(logit - negatives))
                    g += own
        return g

    def clean() -> Any:
        return share(plan.logits.negative(d), 2) * plan.logits.negative_slope(d)

    def mixed() -> Any:
        positive, negative = _pairs(plan, refs, at, ref_at)
        p = share(plan.logits.positive(d), 0) * plan.logits.positive_slope(d)
        return jnp.where(positive, p, jnp.where(negative, clean(), 0.0))

    # Classes ascend: where the first of one side comes after the last of the other, none is equal.
    first, last = (refs.classes[at.start + i] for i in (0, rows - 1))
    ref_first, ref_last = (refs.ref_classes[ref_at.start + i] for i in (0, columns - 1))
    padded = (last == PAD) | (ref_last == PAD)
    g = jax.lax.cond((first <= ref_last) & (ref_first <= last) | padded, mixed, clean)
    g = _of_dots(plan, g, d)
    if out.dtype == jnp.float16:  # finite, also where an unbounded slope is not
        g = jnp.clip(g, -65504.0, 65504.0)
    out[:, :] = g.astype(out.dtype)


def _load(ref: Any, at: Any) -> Any:
    return plgpu.load(ref.at[at])


def _distances(plan: Plan, dots: Any, refs: Refs, at: Any, ref_at: Any) -> Any:
    """Distances of a tile in float32."""
    depth, width = plan.tile.depth, refs.x.shape[1]

    def add(i: Any, dot: Any) -> Any:
        part = pl.ds(i * depth, depth)
        a, b = _load(refs.x, (at, part)), _load(refs.r, (ref_at, part))
        return dot + plgpu.dot(a, b, trans_b=True, allow_tf32=False).astype(jnp.float32)

    if dots is None:
        # A loop of the GPU's: in a row of products, all their tiles would be in shared memory.
        dot = jnp.zeros((plan.tile.rows, plan.tile.columns), jnp.float32)
        dot = jax.lax.fori_loop(0, width // depth, add, dot)
    else:
        dot = _load(dots, (at, ref_at))
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


def _mixed(j: Any, stop: Any, m: int, columns: int) -> Any:
    """The columns of the j-th tile of a band, or of the rest after it."""
    return pl.ds(jnp.where(j < stop, j, m // columns) * columns, columns)


def _pairs(plan: Plan, refs: Refs, at: Any, ref_at: Any) -> tuple[Any, Any]:
    """Which pairs of a tile are positives, and which negatives."""
    own, other = _load(refs.classes, at)[:, None], _load(refs.ref_classes, ref_at)[None, :]
    real = (own != PAD) & (other != PAD)
    positive, negative = (own == other) & real, (own != other) & real
    if not plan.diagonal:
        places = _load(refs.positions, at)[:, None], _load(refs.ref_positions, ref_at)[None, :]
        positive = positive & (places[0] != places[1])
    return positive, negative


def _more(logit: Any, found: Any) -> Any:
    """The largest logit of each row and the sum of exp(logit - largest), with a tile's."""
    largest, total = found
    new = jnp.maximum(largest, jnp.max(logit, axis=1))
    at = jnp.where(new == -INF, 0.0, new)
    total = total * jnp.exp(largest - at) + jnp.sum(jnp.exp(logit - at[:, None]), axis=1)
    return new, total
