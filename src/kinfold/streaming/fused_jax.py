"""The fused kernels in JAX, through Pallas: what they are given, and the gradient.

As in PyTorch (`fused_torch`), but that a loss combines the statistics in float32, and that tiles
are the small ones which fit any GPU.
"""

import os
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from kinfold.streaming import fused_pallas as kernels
from kinfold.streaming.fused_pallas import INF, Logits, Plan, Refs
from kinfold.streaming.fused_tiles import Tile, tiles

# Values of jax.default_matmul_precision that ask for float32 products without TF32, as does none.
EXACT = (None, "highest", "float32", "F32_F32_F32")


class Problem(NamedTuple):
    """What a compiled graph is for; hashable."""

    loss: Any  # None: a pair's own reference is its positive, and logits are dot products
    distance: str
    diagonal: bool
    both: bool
    tf32: bool
    interpret: bool


def _on_gpu() -> bool:
    return jax.default_backend() == "gpu"


def refusal(x: Any) -> str | None:
    """Why arrays cannot be served, in a sentence."""
    if _on_gpu() and jax.device_count() > 1:
        return f"there are {jax.device_count()} GPUs, and they take no arrays that may be sharded."
    if _on_gpu() or _interpreted():
        return None
    return (
        f"JAX runs on {jax.default_backend()}, and they run on a GPU (elsewhere only in Pallas's "
        "interpreter, for tests: TRITON_INTERPRET=1)."
    )


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1" and not _on_gpu()


def _tf32() -> bool:
    return jax.config.jax_default_matmul_precision not in EXACT


def rows(loss: Any, x: Any, r: Any, labels: Any, diagonal: bool) -> tuple[Any, Any]:
    """Loss and validity of each anchor; without `r` the anchors are the references."""
    problem = Problem(loss, loss.distance.name, diagonal, False, _tf32(), _interpreted())
    return _rows(problem, x, r, *labels)


@partial(jax.jit, static_argnums=0)
def _rows(problem: Problem, x: Any, r: Any, y: Any, ref_y: Any) -> tuple[Any, Any]:
    every = y if ref_y is None else jnp.concatenate([y, ref_y])
    order = jnp.argsort(every)
    new = jnp.concatenate([jnp.zeros(1, bool), every[order][1:] != every[order][:-1]])
    ranks = jnp.zeros(len(every), jnp.int32).at[order].set(jnp.cumsum(new).astype(jnp.int32))
    classes, ref_classes = ranks[: len(y)], None if ref_y is None else ranks[len(y) :]
    p, n, extra = _statistics(problem, x, r, None, classes, ref_classes)
    _, valid = _counts(problem, classes, ref_classes)
    losses = problem.loss.fused().combine(p, n, extra)
    return jnp.where(valid, losses, 0.0), valid


def pairs(x: Any, r: Any, scale: Any, both: bool) -> Any:
    """-log softmax of each pair among its row and, where `both`, among its column."""
    problem = Problem(None, "inner_product", True, both, _tf32(), _interpreted())
    return _paired(problem, x, r, scale)


@partial(jax.jit, static_argnums=0)
def _paired(problem: Problem, x: Any, r: Any, scale: Any) -> Any:
    at = jnp.arange(len(x), dtype=jnp.int32)
    p, n, _, *of_columns = _statistics(problem, x, r, scale, at, at)
    sums = [(p, n), tuple(of_columns)][: 1 + problem.both]
    return tuple(jax.nn.softplus(n - p) if len(x) > 1 else p * 0.0 for p, n in sums)


def _counts(problem: Problem, classes: Any, ref_classes: Any) -> tuple[Any, Any]:
    """How many positives each anchor has, and whether it has some and negatives."""
    other = classes if ref_classes is None else ref_classes
    run = jnp.sort(other)
    same = jnp.searchsorted(run, classes, side="right") - jnp.searchsorted(run, classes)
    positives = same
    if not problem.diagonal:
        k = min(len(classes), len(other))
        own = (classes[:k] == other[:k]).astype(same.dtype)
        positives = same - jnp.pad(own, (0, len(classes) - k))
    return positives, (positives > 0) & (same < len(other))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _statistics(problem: Problem, x: Any, r: Any, scale: Any, classes: Any, ref: Any) -> Any:
    return _statistics_forward(problem, x, r, scale, classes, ref)[0]


def _statistics_forward(problem: Problem, *primals: Any) -> Any:
    x, _, scale, classes, ref_classes = primals
    plan = _plan(problem, x, 0)
    sides = _sides(problem, plan, primals)
    counts = _counts(problem, classes, ref_classes)
    stats = _forward(problem, plan, sides, scale)
    out = _values(plan, stats, counts)
    ref_stats = None
    if problem.both:
        ref_stats = _forward(problem, plan, sides[::-1], scale)
        out += _values(plan, ref_stats, counts)[:2]
    return out, (primals, stats, ref_stats)


def _statistics_backward(problem: Problem, saved: Any, gradients: Any) -> Any:
    (x, r, scale, classes, ref_classes), stats, ref_stats = saved
    plan = _plan(problem, x, 1)
    sides = _sides(problem, plan, (x, r, scale, classes, ref_classes))
    counts = _counts(problem, classes, ref_classes)
    every = [jnp.where(counts[1], g, 0.0) for g in gradients]
    # In half precision the second product's entries must neither overflow nor vanish.
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(g)) for g in every]))
    factor = jnp.where(largest > 0, largest, 1.0)
    gp, gn, ge, *of_columns = (g / factor for g in every)
    terms = ref_terms = _terms(plan, stats, counts, gp, gn, ge)
    if problem.both:
        ref_terms = _terms(plan, ref_stats, counts, of_columns[0], of_columns[1], 0.0)
    symmetric = r is None
    both = symmetric or problem.both
    dx = _backward(problem, plan, sides, (terms, ref_terms), (True, both), scale, factor)
    dr = ds = None
    if not symmetric:
        of = (ref_terms, terms), (problem.both, True)
        dr = _backward(problem, plan, sides[::-1], *of, scale, factor)
    dx = dx[:, : x.shape[1]]
    dr = None if dr is None else dr[:, : x.shape[1]]
    if scale is not None:
        ds = jnp.sum(dx.astype(jnp.float32) * x.astype(jnp.float32)) / scale
        ds = ds.astype(scale.dtype)
    return dx, dr, ds, None, None


_statistics.defvjp(_statistics_forward, _statistics_backward)


class Side(NamedTuple):
    x: Any  # padded to whole tiles
    classes: Any
    order: Any
    squares: Any


def _plan(problem: Problem, x: Any, kernel: int) -> Plan:
    sizes = tiles(x.shape[1], x.dtype.name, "ieee", 0)
    loss, spec = problem.loss, None if problem.loss is None else problem.loss.fused()
    if spec is None or spec.functions is None:
        numbers = ((1.0, 0.0), (1.0, 0.0)) if spec is None else (spec.positive, spec.negative)
        (p, p_at), (n, n_at) = numbers
        logits = Logits(
            lambda d: p * (d - p_at),
            lambda d: n * (d - n_at),
            lambda d: jnp.full_like(d, p),
            lambda d: jnp.full_like(d, n),
        )
    else:
        slopes = loss.positive_slope, loss.negative_slope
        logits = Logits(loss.positive_logit, loss.negative_logit, *slopes)
    extra = "none" if spec is None else spec.extra
    tile: Tile = (sizes.forward, sizes.backward)[kernel]
    scaled = problem.loss is None
    return Plan(logits, problem.distance, problem.diagonal, scaled, extra, problem.tf32, tile)


def _sides(problem: Problem, plan: Plan, primals: Any) -> tuple[Side, Side]:
    x, r, _, classes, ref_classes = primals
    width = tiles(x.shape[1], x.dtype.name, "ieee", 0).width
    whole = max(plan.tile.rows, plan.tile.columns)

    def side(x: Any, classes: Any) -> Side:
        order = jnp.argsort(classes, stable=True).astype(jnp.int32)
        more = -len(x) % whole
        rows = jnp.pad(x[order], ((0, more), (0, width - x.shape[1])))
        last = jnp.pad(classes[order], (0, more), constant_values=2**31 - 1)
        squares = jnp.sum(jnp.square(rows.astype(jnp.float32)), axis=1)
        return Side(rows, last, order, squares)

    anchors = side(x, classes)
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
    positions = jnp.pad(side.order, (0, len(side.x) - len(side.order)))
    return side.x, side.classes, positions, side.squares


def _forward(problem: Problem, plan: Plan, sides: tuple[Side, Side], scale: Any) -> Any:
    refs, rows, (own, other) = _refs(plan, sides, scale), plan.tile.rows, sides
    m = len(other.order)

    def kernel(*args: Any) -> None:
        kernels.forward(plan, m, Refs(*args[: len(refs)]), *args[len(refs) :])

    out = pl.pallas_call(
        kernel,
        grid=(len(own.x) // rows,),
        out_shape=[jax.ShapeDtypeStruct((len(own.x),), jnp.float32)] * 6,
        out_specs=[pl.BlockSpec((rows,), lambda i: (i,))] * 6,
        **_options(problem, plan),
    )(*refs)
    return [
        jnp.zeros(len(own.order), jnp.float32).at[own.order].set(o[: len(own.order)]) for o in out
    ]


def _backward(
    problem: Problem,
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
        **_options(problem, plan),
    )(*refs, *arrays)
    gradient = (out[:n] * factor).astype(own.x.dtype)
    return jnp.zeros_like(gradient).at[own.order].set(gradient)


def _options(problem: Problem, plan: Plan) -> dict[str, Any]:
    params = plgpu.CompilerParams(num_warps=plan.tile.warps, num_stages=plan.tile.stages)
    return {"interpret": problem.interpret, "compiler_params": params}


def _values(plan: Plan, stats: Any, counts: Any) -> list[Any]:
    """P, N and the extra, float32 [n]; 0 for an invalid anchor."""
    p_largest, p_total, n_largest, n_total, extra, _ = stats
    positives, valid = counts
    if plan.extra == "mean":
        extra = p_largest + extra / positives
    elif plan.extra == "each":
        extra = extra / positives
    values = p_largest + jnp.log(p_total), n_largest + jnp.log(n_total), extra
    return [jnp.where(valid, value, 0.0) for value in values]


def _terms(plan: Plan, stats: Any, counts: Any, gp: Any, gn: Any, ge: Any) -> list[Any]:
    """What the second kernel takes of each anchor: nothing of an invalid one."""
    p_largest, p_total, n_largest, n_total, _, pull = stats
    positives, valid = counts
    each = ge / positives
    if plan.extra == "each":
        gn = gn + each * pull
    shifts = p_largest, n_largest, n_largest + jnp.log(n_total)
    weights = gp / p_total, gn / n_total, each
    p_shift, n_shift, n = (jnp.where(valid, shift, INF) for shift in shifts)
    p_weight, n_weight, each = (jnp.where(valid, weight, 0.0) for weight in weights)
    return [p_shift, p_weight, n_shift, n_weight, each, n]
