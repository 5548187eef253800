"""The loop over chunks in JAX: a scan whose body is computed again in the backward pass."""

from typing import Any

import jax
import jax.numpy as jnp

from kinfold.core.chunks.convolutions_jax import replaced

Values = list[jax.Array]


def run(piece: Any, size: int, trainable: Values, others: Values, inputs: Values) -> Any:
    if not any(isinstance(a, jax.core.Tracer) for a in (*trainable, *others, *inputs)):
        return _eager(piece, size, trainable, others, inputs)
    count = len(inputs[0]) // size
    whole = [a[: count * size].reshape(count, size, *a.shape[1:]) for a in inputs]
    rest = [a[count * size :] for a in inputs]
    # What a call changes is carried, which a scan has to know beforehand.
    jax.eval_shape(piece, trainable, others, [a[:size] for a in inputs])

    def step(state: Values, chunk: Values) -> Any:
        outputs, values = piece(trainable, piece.with_state(others, state), chunk)
        return piece.state(values), outputs

    if jax.default_backend() == "cpu":
        step = replaced(step)
    # A scan keeps the passes apart by itself; the barriers would only be in the compiler's way.
    body = jax.checkpoint(step, prevent_cse=False)
    state, outputs = jax.lax.scan(body, piece.state(others), whole)
    outputs = [y.reshape(-1, *y.shape[2:]) for y in outputs]
    if len(rest[0]):
        state, last = jax.checkpoint(step)(state, rest)
        outputs = [jnp.concatenate(pair) for pair in zip(outputs, last, strict=True)]
    return outputs, piece.with_state(others, state)


def _eager(piece: Any, size: int, trainable: Values, others: Values, inputs: Values) -> Any:
    """Op by op, where no gradient is asked for: a scan would be compiled at every call."""
    chunks = []
    for start in range(0, len(inputs[0]), size):
        outputs, others = piece(trainable, others, [a[start : start + size] for a in inputs])
        chunks.append(outputs)
    return [jnp.concatenate(parts) for parts in zip(*chunks, strict=True)], others
