"""The loop over chunks in TensorFlow, and a second one over their gradients.

Whole chunks run in a `tf.while_loop`, one after the other, and what is left over in a call of its
own, so that XLA finds fixed shapes in the loop. A batch size may be unknown when tracing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Values = list[tf.Tensor]


def run(piece: Any, size: int, trainable: Values, others: Values, inputs: Values) -> Any:
    trainable, others = ([tf.convert_to_tensor(v) for v in vs] for vs in (trainable, others))
    # Traced once for what a loop has to know: what a call changes, and the shapes of its outputs.
    specs = [tf.TensorSpec((size, *x.shape[1:]), x.dtype) for x in inputs]
    probe = tf.function(lambda *chunk: piece(trainable, others, chunk)[0], autograph=False)
    rows = probe.get_concrete_function(*specs).structured_outputs
    weights, floating = len(trainable), [i for i, x in enumerate(inputs) if x.dtype.is_floating]

    def given(tensors: Sequence[tf.Tensor], chunk: Sequence[tf.Tensor], state: Values) -> Any:
        """What `piece` takes, with `tensors` for all that gradients go to."""
        chunk = list(chunk)
        for i, x in zip(floating, tensors[weights:], strict=True):
            chunk[i] = x
        return tensors[:weights], piece.with_state(others, state), chunk

    @tf.custom_gradient
    def chunks(*tensors: tf.Tensor) -> Any:
        _, _, xs = given(tensors, inputs, piece.state(others))

        def forward(state: Values, chunk: Values, _: Values) -> Any:
            at = [*tensors[:weights], *(chunk[i] for i in floating)]
            outputs, values = piece(*given(at, chunk, state))
            return piece.state(values), outputs

        def backward(*g: tf.Tensor) -> Any:
            def step(sums: Values, chunk: Values, state: Values) -> Any:
                # Copies, as one tensor may be given twice, and its two gradients are apart.
                chunk, g = chunk[: len(xs)], chunk[len(xs) :]
                at = [tf.identity(t) for t in (*tensors[:weights], *(chunk[i] for i in floating))]
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(at)
                    outputs, _ = piece(*given(at, chunk, state))
                pairs = [(y, gy) for y, gy in zip(outputs, g, strict=True) if y.dtype.is_floating]
                ys, gs = zip(*pairs, strict=True)
                parts = tape.gradient(ys, at, gs, unconnected_gradients="zero")
                parts = [tf.convert_to_tensor(part) for part in parts]
                added = [s + part for s, part in zip(sums, parts[:weights], strict=True)]
                return added, parts[weights:]

            zeros = [tf.zeros_like(t) for t in tensors[:weights]]
            cut, like = [*xs, *g[: len(rows)]], [specs[i] for i in floating]
            sums, dx, _ = _loop(size, step, zeros, cut, like, history)
            return *sums, *dx

        state, outputs, history = _loop(size, forward, piece.state(others), xs, rows)
        return (*outputs, *state), backward

    flat = chunks(*trainable, *(inputs[i] for i in floating))
    return flat[: len(rows)], piece.with_state(others, flat[len(rows) :])


def _loop(
    size: int,
    step: Callable[..., Any],
    carry: Values,
    tensors: Values,
    like: Sequence[Any],
    history: Values | None = None,
) -> tuple[Values, Values, Values]:
    """Run `step(carry, chunk of the tensors, carry before) -> carry, chunk of outputs` throughout.

    Args:
        like: shapes and dtypes of the outputs of a whole chunk.
        history: the carry before each chunk in an earlier loop; None keeps those of this one.

    Returns:
        The last carry, the outputs of all chunks together, and the history.
    """
    n = tensors[0].shape[0]
    dynamic = n is None
    if dynamic:
        n = tf.shape(tensors[0])[0]
    count, left = n // size, n % size
    arrays = [
        tf.TensorArray(y.dtype, count, element_shape=(size, *y.shape[1:]), infer_shape=False)
        for y in like
    ]
    kept = []
    if history is None:
        kept = [tf.TensorArray(c.dtype, count + 1, element_shape=c.shape) for c in carry]

    def taken(i: Any, rows: Any, carry: Values) -> Any:
        chunk = [_slice(t, i * size, rows) for t in tensors]
        return step(carry, chunk, [tf.gather(h, i) for h in history or ()])

    def body(i: Any, carry: Values, kept: Any, arrays: Any) -> Any:
        kept = [a.write(i, c) for a, c in zip(kept, carry, strict=False)]
        carry, outputs = taken(i, size, carry)
        return i + 1, carry, kept, [a.write(i, y) for a, y in zip(arrays, outputs, strict=True)]

    _, carry, kept, arrays = tf.while_loop(
        lambda i, *_: i < count,
        body,
        (tf.constant(0), list(carry), kept, arrays),
        parallel_iterations=1,  # as one chunk is to be in memory
    )
    outputs = [a.concat() for a in arrays]
    kept = [a.write(count, c).stack() for a, c in zip(kept, carry, strict=False)]

    def rest() -> Any:
        after, last = taken(count, left, carry)
        return after, [tf.concat(pair, 0) for pair in zip(outputs, last, strict=True)]

    if dynamic:
        carry, outputs = tf.cond(left > 0, rest, lambda: (carry, outputs))
    elif left:
        carry, outputs = rest()
    return carry, outputs, kept


def _slice(t: tf.Tensor, start: Any, rows: Any) -> tf.Tensor:
    sizes = [tf.shape(t)[k] if d is None else d for k, d in enumerate(t.shape)]
    return tf.slice(t, [start, *[0] * (t.shape.rank - 1)], [rows, *sizes[1:]])
