"""The loop over blocks and its vector-Jacobian product, in TensorFlow.

The loops run in functions compiled by XLA, which fuses a block's element-wise work; a caller's
`tf.function`, compiled or not, takes them as they are. A batch size may be unknown when tracing.
"""

import functools
from typing import Any

import tensorflow as tf
from keras import ops

from kinfold.core.numerics import at_least_float32
from kinfold.streaming import log_sums
from kinfold.streaming.log_sums import LogSum

Data = tuple[tf.Tensor, ...]


# Pairs of a block on a processor: with half as many, or twice, a step takes about 5% longer.
PAIRS = 2**21


def devices(x: tf.Tensor) -> None:
    """No tensor lies on several devices; see `kinfold.distributed`."""


def on_gpu(x: tf.Tensor) -> bool:
    """Whether what is computed of `x` runs on a GPU, as TensorFlow does where it sees one."""
    return bool(tf.config.list_logical_devices("GPU"))


def snapshot(tensors: Data) -> Data:
    """Tensors that a backward pass may look at: as they are, for nothing writes into them."""
    return tuple(tensors)


@functools.lru_cache(maxsize=256)
def compiled(fn: Any, *fixed: Any) -> Any:
    """`fn(*fixed, *tensors)` compiled: one `tf.function` for what is fixed, one trace a shape."""
    return tf.function(functools.partial(fn, *fixed), jit_compile=True, autograph=False)


def one_block(block: Any, xs: Data, rs: Data, anchors: Data, references: Data) -> Any:
    """One block, differentiated as it is."""
    return block(*xs, *rs, *anchors, *references)


def per_anchor(block: Any, size: Any, xs: Data, rs: Data, anchors: Data, references: Data) -> Any:
    return compiled(_per_anchor, block, size)(xs, rs, anchors, references)


def weighted_sum(
    block: Any,
    size: Any,
    xs: Data,
    rs: Data,
    weights: tf.Tensor,
    anchors: Data,
    references: Data,
) -> Any:
    return compiled(_weighted_sum, block, size)(xs, rs, weights, anchors, references)


def sum_and_log_sum(
    block: Any, size: Any, x: tf.Tensor, r: tf.Tensor, anchors: Data, references: Data
) -> Any:
    return compiled(_sum_and_log_sum, block, size)(x, r, anchors, references)


def _per_anchor(block: Any, size: Any, xs: Data, rs: Data, anchors: Data, references: Data) -> Any:
    k = len(xs)

    @tf.custom_gradient
    def rows(*tensors: Any) -> Any:
        xs, rs = tensors[:k], tensors[k:]

        def rows_of(nothing: Any, *of_anchors: Any) -> Any:
            return nothing, block(*of_anchors[:k], *rs, *of_anchors[k:], *references)

        _, (loss, valid) = _loop(size, rs[0], rows_of, tf.constant(0), (*xs, *anchors))

        def backward(g: Any, _: Any) -> Any:
            def step(dr: Any, gt: Any, *of_anchors: Any) -> Any:
                data = (*of_anchors[k:], *references)
                dxt, parts = _block_gradients(block, of_anchors[:k], rs, gt, data)[1]
                return _added(dr, parts), dxt

            dr, dx = _loop(size, rs[0], step, _accumulators(rs), (g, *xs, *anchors))
            return [*dx, *(tf.cast(d, r.dtype) for d, r in zip(dr, rs, strict=True))]

        return (loss, valid), backward

    return rows(*xs, *rs)


def _weighted_sum(
    block: Any, size: Any, xs: Data, rs: Data, weights: Any, anchors: Data, references: Data
) -> Any:
    k = len(xs)

    @tf.custom_gradient
    def total(weights: Any, *tensors: Any) -> Any:
        xs, rs = tensors[:k], tensors[k:]

        # Where no gradient is asked for, nothing reads the gradients, and XLA leaves them out.
        def step(dr: Any, wt: Any, *of_anchors: Any) -> Any:
            data = (*of_anchors[k:], *references)
            found, (dxt, parts) = _block_gradients(block, of_anchors[:k], rs, wt, data)
            return _added(dr, parts), (*found, *dxt)

        start = _accumulators(rs)
        dr, (loss, valid, *dx) = _loop(size, rs[0], step, start, (weights, *xs, *anchors))

        def backward(g: Any, _: Any) -> Any:
            parts = zip((loss, *dx, *dr), (weights, *tensors), strict=True)
            return [tf.cast(g * tf.cast(part, g.dtype), t.dtype) for part, t in parts]

        return (tf.reduce_sum(loss * weights), valid), backward

    return total(weights, *xs, *rs)


def _sum_and_log_sum(block: Any, size: Any, x: Any, r: Any, anchors: Data, references: Data) -> Any:
    @tf.custom_gradient
    def values(x: Any, r: Any) -> Any:
        def sizes() -> tuple[Any, Any]:
            """References, and those of a block; anew for each loop, as XLA knows only shapes."""
            n, m = (a.shape[0] or tf.shape(a)[0] for a in (x, r))
            b = size if isinstance(size, int) else size.anchors(n)
            return m, min(b, m) if isinstance(b, int) and isinstance(m, int) else tf.minimum(b, m)

        def cut(i: Any, m: Any, b: Any) -> Any:
            # The last one ends with the references, and so needs no padded copy of them.
            start = tf.minimum(i * b, m - b)
            parts = [
                tf.slice(a, [start] + [0] * (a.shape.rank - 1), [b, *a.shape[1:]])
                for a in (r, *references)
            ]
            return start, parts, tf.range(b) + start >= i * b

        def add(i: Any, total: Any, log_sum: Any) -> Any:
            _, (rt, *data), new = cut(i, m, b)
            terms, logits = map(at_least_float32, block(x, rt, *anchors, *data))
            part = tf.reduce_sum(tf.where(new, terms, 0), axis=1)
            found = log_sums.log_sum(tf.where(new, logits, -float("inf")), 1)
            return i + 1, total + part, log_sum.merged(found)

        m, b = sizes()
        nothing = accumulator(x[:, 0])
        start = 0, nothing, LogSum(nothing - float("inf"), nothing)
        _, total, log_sum = tf.while_loop(lambda i, *_: i * b < m, add, start)

        def backward(g: Any, g_log_sum: Any) -> Any:
            m, b = sizes()

            def step(i: Any, dx: Any, dr: Any) -> Any:
                start, (rt, *data), new = cut(i, m, b)
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch((x, rt))
                    terms, logits = map(at_least_float32, block(x, rt, *anchors, *data))
                both = (
                    g[:, None] + tf.zeros_like(terms),
                    log_sums.shares(logits, log_sum, g_log_sum),
                )
                given = [tf.where(new, part, 0) for part in both]
                parts = tape.gradient((terms, logits), (x, rt), given)
                at = [start] + [0] * (r.shape.rank - 1)
                old = tf.slice(dr, at, [b, *r.shape[1:]])
                return (
                    i + 1,
                    dx + at_least_float32(parts[0]),
                    ops.slice_update(dr, at, old + parts[1]),
                )

            start = 0, accumulator(x), tf.zeros_like(r)
            _, dx, dr = tf.while_loop(lambda i, *_: i * b < m, step, start)
            return tf.cast(dx, x.dtype), dr

        return (total, log_sum.value()), backward

    return values(x, r)


def _block_gradients(block: Any, xt: Data, rs: Data, gt: Any, data: Data) -> Any:
    """Outputs of a block, and its parts of the gradients of the anchors and of the references."""
    tensors = (*xt, *rs)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        loss, valid = block(*tensors, *data)
    gt = tf.cast(gt, loss.dtype)
    parts = tuple(tape.gradient(loss, tensors, gt, unconnected_gradients="zero"))
    return (loss, valid), (parts[: len(xt)], parts[len(xt) :])


def _added(sums: Any, parts: Any) -> Any:
    return tuple(s + at_least_float32(part) for s, part in zip(sums, parts, strict=True))


def _accumulators(rs: Data) -> Any:
    return tuple(map(accumulator, rs))


def accumulator(like: Any) -> Any:
    """Zeros for a sum over blocks, in float32 at least."""
    return at_least_float32(tf.zeros_like(like))


def _loop(size: Any, r: Any, step: Any, carry: Any, arrays: Data) -> Any:
    """Run `step(carry, *blocks of arrays) -> carry, outputs`; return the carry and outputs [n]."""
    n = tf.shape(arrays[0])[0]
    if not isinstance(size, int):
        size = tf.minimum(size.anchors(tf.shape(r)[0]), tf.maximum(n, 1))
    blocks = tf.maximum(-(-n // size), 1)  # one of zeros for an empty batch
    padded = [tf.pad(a, [[0, blocks * size - n]] + [[0, 0]] * (a.shape.rank - 1)) for a in arrays]

    def block(i: Any) -> Any:
        return [
            tf.slice(a, [i * size] + [0] * (a.shape.rank - 1), [size, *a.shape[1:]]) for a in padded
        ]

    def empty(output: Any) -> Any:
        return tf.zeros([blocks * size, *output.shape[1:]], output.dtype)

    def body(i: Any, carry: Any, outputs: Any) -> Any:
        carry, values = step(carry, *block(i))
        return (
            i + 1,
            carry,
            tuple(
                ops.slice_update(o, [i * size] + [0] * (o.shape.rank - 1), v)
                for o, v in zip(outputs, values, strict=True)
            ),
        )

    outputs = tuple(empty(output) for output in step(carry, *block(0))[1])
    _, carry, outputs = tf.while_loop(lambda i, *_: i < blocks, body, (0, carry, outputs))
    return carry, [output[:n] for output in outputs]
