"""The loop over blocks and its vector-Jacobian product, in JAX."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kinfold.core.checks import is_concrete
from kinfold.core.numerics import at_least_float32
from kinfold.streaming import devices as over_devices
from kinfold.streaming import log_sums
from kinfold.streaming.log_sums import LogSum

Data = tuple[jax.Array, ...]


# Pairs of a block on a processor: with half as many, or twice, a step takes about 5% longer.
PAIRS = 2**21


def devices(x: jax.Array) -> Any:
    """The devices over which the rows of `x` are to be shared; None for one."""
    return over_devices.of(x)


on_devices = over_devices.shared


def on_gpu(x: jax.Array) -> bool:
    """Whether what is computed of `x` runs on a GPU, which fused kernels serve."""
    if is_concrete(x):
        return all(device.platform == "gpu" for device in x.devices())
    device = jax.config.jax_default_device
    return (getattr(device, "platform", device) or jax.default_backend()) in ("gpu", "cuda")


def snapshot(tensors: Data) -> Data:
    """Tensors that a backward pass may look at: as they are, for nothing writes into them."""
    return tuple(tensors)


@partial(jax.jit, static_argnums=0)  # eager callers too compile once a shape
def one_block(block: Any, xs: Data, rs: Data, anchors: Data, references: Data) -> Any:
    """One block, differentiated as it is."""
    return block(*xs, *rs, *anchors, *references)


@partial(jax.jit, static_argnums=(0, 1))
def per_anchor(block: Any, size: int, xs: Data, rs: Data, anchors: Data, references: Data) -> Any:
    return _per_anchor(block, size, xs, rs, anchors, references)


@partial(jax.jit, static_argnums=(0, 1))
def weighted_sum(
    block: Any,
    size: int,
    xs: Data,
    rs: Data,
    weights: jax.Array,
    anchors: Data,
    references: Data,
) -> Any:
    return _weighted_sum(block, size, xs, rs, weights, anchors, references)


@partial(jax.jit, static_argnums=(0, 1))
def sum_and_log_sum(
    block: Any, size: int, x: jax.Array, r: jax.Array, anchors: Data, references: Data
) -> Any:
    return _sum_and_log_sum(block, size, x, r, anchors, references)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _per_anchor(block: Any, size: int, xs: Data, rs: Data, anchors: Data, references: Data) -> Any:
    def step(_: None, chunk: Any) -> Any:
        xt, data = chunk
        return None, block(*xt, *rs, *data, *references)

    _, outputs = jax.lax.scan(step, None, _chunks(size, xs, anchors))
    return _joined(outputs, len(xs[0]))


def _per_anchor_forward(block: Any, size: int, *primals: Any) -> Any:
    xs, rs, *data = jax.tree.map(lambda p: p.value, primals, is_leaf=_is_primal)
    wanted = tuple(p.perturbed for side in primals[:2] for p in side)
    return _per_anchor(block, size, xs, rs, *data), (xs, rs, data, wanted)


def _per_anchor_backward(block: Any, size: int, saved: Any, cotangents: Any) -> Any:
    xs, rs, (anchors, references), wanted = saved
    g = cotangents[0]
    if not isinstance(g, jax.Array):  # a symbolic zero
        g = jnp.zeros(g.shape, g.dtype)

    def step(dr: Any, chunk: Any) -> Any:
        xt, gt, data = chunk
        _, dxt, dr = _block_gradients(block, xt, rs, gt, (*data, *references), wanted, dr)
        return dr, dxt

    start = _accumulators(rs, wanted)
    dr, dx = jax.lax.scan(step, start, _chunks(size, xs, g, anchors))
    return _joined(dx, len(xs[0])), _cast(dr, rs), None, None


_per_anchor.defvjp(_per_anchor_forward, _per_anchor_backward, symbolic_zeros=True)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _weighted_sum(
    block: Any, size: int, xs: Data, rs: Data, weights: Any, anchors: Data, references: Data
) -> Any:
    def step(total: Any, chunk: Any) -> Any:
        xt, wt, data = chunk
        loss, valid = block(*xt, *rs, *data, *references)
        return total + jnp.sum(loss * wt), valid

    chunks = _chunks(size, xs, weights, anchors)
    total, valid = jax.lax.scan(step, jnp.zeros((), weights.dtype), chunks)
    return total, _joined(valid, len(xs[0]))


def _weighted_sum_forward(block: Any, size: int, *primals: Any) -> Any:
    xs, rs, weights, anchors, references = jax.tree.map(
        lambda p: p.value, primals, is_leaf=_is_primal
    )
    wanted = tuple(p.perturbed for side in primals[:2] for p in side)

    def step(carry: Any, chunk: Any) -> Any:
        total, dr = carry
        xt, wt, data = chunk
        (loss, valid), dxt, dr = _block_gradients(
            block, xt, rs, wt, (*data, *references), wanted, dr
        )
        return (total + jnp.sum(loss * wt), dr), (dxt, loss, valid)

    start = jnp.zeros((), weights.dtype), _accumulators(rs, wanted)
    (total, dr), blocks = jax.lax.scan(step, start, _chunks(size, xs, weights, anchors))
    dx, loss, valid = _joined(blocks, len(xs[0]))
    return (total, valid), (dx, _cast(dr, rs), loss)


def _weighted_sum_backward(block: Any, size: int, saved: Any, cotangents: Any) -> Any:
    g = cotangents[0]
    if not isinstance(g, jax.Array):
        return None, None, None, None, None
    dx, dr, loss = jax.tree.map(lambda part: g.astype(part.dtype) * part, saved)
    return dx, dr, loss, None, None


_weighted_sum.defvjp(_weighted_sum_forward, _weighted_sum_backward, symbolic_zeros=True)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum_and_log_sum(block: Any, size: int, x: Any, r: Any, anchors: Data, references: Data) -> Any:
    return _sum_and_log_sum_forward(block, size, x, r, anchors, references)[0]


def _sum_and_log_sum_forward(
    block: Any, size: int, x: Any, r: Any, anchors: Data, references: Data
) -> Any:
    size = min(size, len(r))

    def step(i: Any, sums: Any) -> Any:
        _, rt, data, new = _columns(i, size, r, references)
        terms, logits = map(at_least_float32, block(x, rt, *anchors, *data))
        part = jnp.sum(jnp.where(new, terms, 0), axis=1)
        found = log_sums.log_sum(jnp.where(new, logits, -jnp.inf), 1)
        return sums[0] + part, sums[1].merged(found)

    nothing = accumulator(x[:, 0])
    start = nothing, LogSum(nothing - jnp.inf, nothing)
    total, log_sum = jax.lax.fori_loop(0, -(-len(r) // size), step, start)
    return (total, log_sum.value()), (x, r, anchors, references, log_sum)


def _sum_and_log_sum_backward(block: Any, size: int, saved: Any, cotangents: Any) -> Any:
    x, r, anchors, references, log_sum = saved
    size = min(size, len(r))

    def step(i: Any, gradients: Any) -> Any:
        dx, dr = gradients
        start, rt, data, new = _columns(i, size, r, references)

        def found(x: Any, rt: Any) -> Any:
            return tuple(map(at_least_float32, block(x, rt, *anchors, *data)))

        (_, logits), pull = jax.vjp(found, x, rt)
        terms = jnp.broadcast_to(cotangents[0][:, None], logits.shape)
        shares = log_sums.shares(logits, log_sum, cotangents[1])
        parts = pull(tuple(jnp.where(new, part, 0) for part in (terms, shares)))
        old = jax.lax.dynamic_slice_in_dim(dr, start, size)
        return dx + parts[0], jax.lax.dynamic_update_slice_in_dim(dr, old + parts[1], start, 0)

    blocks = -(-len(r) // size)
    dx, dr = jax.lax.fori_loop(0, blocks, step, (accumulator(x), jnp.zeros_like(r)))
    return dx.astype(x.dtype), dr, None, None


_sum_and_log_sum.defvjp(_sum_and_log_sum_forward, _sum_and_log_sum_backward)


def _block_gradients(
    block: Any, xt: Data, rs: Data, gt: Any, data: Data, wanted: tuple[bool, ...], dr: Any
) -> Any:
    """Outputs of a block, its part of dx, and `dr` with its part added; None where not wanted."""
    every = (*xt, *rs)

    def of_wanted(*args: Any) -> Any:
        given = iter(args)
        return block(*(next(given) if w else v for v, w in zip(every, wanted, strict=True)), *data)

    primals = (v for v, w in zip(every, wanted, strict=True) if w)
    loss, pull, valid = jax.vjp(of_wanted, *primals, has_aux=True)
    found = iter(pull(gt.astype(loss.dtype)))
    parts: list[Any] = [next(found) if w else None for w in wanted]
    sums = zip(dr, parts[len(xt) :], strict=True)
    dr = tuple(None if s is None else s + part.astype(s.dtype) for s, part in sums)
    return (loss, valid), tuple(parts[: len(xt)]), dr


def _is_primal(leaf: Any) -> bool:
    return hasattr(leaf, "perturbed")


def accumulator(r: Any) -> Any:
    """Zeros for a sum over blocks, in float32 at least."""
    return jnp.zeros(r.shape, jnp.promote_types(r.dtype, jnp.float32))


def _accumulators(rs: Data, wanted: tuple[bool, ...]) -> Any:
    """Those of the references that a gradient is wanted of; None for the others."""
    of_references = zip(rs, wanted[len(wanted) - len(rs) :], strict=True)
    return tuple(accumulator(r) if w else None for r, w in of_references)


def _cast(dr: Any, rs: Data) -> Any:
    return tuple(d if d is None else d.astype(r.dtype) for d, r in zip(dr, rs, strict=True))


def _chunks(size: int, *arrays: Any) -> Any:
    """Cut arrays [n, ...] into [blocks, size, ...], the last block filled up with zeros."""

    def cut(a: Any) -> Any:
        blocks = -(-len(a) // size)
        fill = [(0, blocks * size - len(a))] + [(0, 0)] * (a.ndim - 1)
        return jnp.pad(a, fill).reshape(blocks, size, *a.shape[1:])

    return jax.tree.map(cut, arrays)


def _columns(i: Any, size: int, r: Any, references: Data) -> Any:
    """Block `i` of the references: where it starts, its parts, and which have not been before.

    The last block ends with the references, and so needs no padded copy of them.
    """
    start = jnp.minimum(i * size, len(r) - size)
    rt, *data = (jax.lax.dynamic_slice_in_dim(a, start, size) for a in (r, *references))
    return start, rt, data, jnp.arange(size) + start >= i * size


def _joined(outputs: Any, n: int) -> Any:
    """Undo `_chunks`."""
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], outputs)
