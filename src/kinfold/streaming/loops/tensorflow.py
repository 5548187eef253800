"""Sums over k, and values whose gradient comes from somewhere else, in TensorFlow."""

from typing import Any

import tensorflow as tf

from kinfold.core.numerics import at_least_float32
from kinfold.streaming.tensorflow import Data, accumulator


def repeated(fn: Any, count: tf.Tensor, tensors: Data, data: Data) -> Any:
    @tf.custom_gradient
    def total(*tensors: Any) -> Any:
        def forward(k: Any, total: Any) -> Any:
            return k + 1, total + at_least_float32(fn(k, *tensors, *data))

        def backward(g: Any) -> Any:
            def step(k: Any, sums: Any) -> Any:
                # Copies, as one tensor may be given twice, and its two gradients are apart.
                at = tuple(map(tf.identity, tensors))
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(at)
                    value = fn(k, *at, *data)
                gv = tf.cast(g, value.dtype)
                parts = tape.gradient(value, at, gv, unconnected_gradients="zero")
                parts = (tf.convert_to_tensor(part) for part in parts)
                return k + 1, tuple(
                    s + at_least_float32(p) for s, p in zip(sums, parts, strict=True)
                )

            start = tuple(map(accumulator, tensors))
            sums = tf.while_loop(lambda k, _: k < count, step, (0, start))[1]
            return [tf.cast(s, t.dtype) for s, t in zip(sums, tensors, strict=True)]

        start = accumulator(tf.reduce_sum(tf.zeros_like(tensors[0]), axis=1))  # of no columns, too
        total = tf.while_loop(lambda k, _: k < count, forward, (0, start))[1]
        return tf.cast(total, tensors[0].dtype), backward

    return total(*tensors)


def with_equation(fast: Any, equation: Any, tensors: Data, data: Data) -> tf.Tensor:
    @tf.custom_gradient
    def value_of(*tensors: Any) -> Any:
        # Copies, as a second tape on the same tensors would ask compiled loops for their second
        # gradients; and no persistent tape, which asks for them too.
        at = tuple(map(tf.stop_gradient, tensors))

        def run() -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(at)
                return fast(*at, *data), tape

        value, tape = run()
        tapes = [tape]

        @tf.custom_gradient
        def gradients(g: Any, *tensors: Any) -> Any:
            def again(*cotangents: Any) -> Any:
                with tf.GradientTape(watch_accessed_variables=False) as outer:
                    outer.watch((g, *tensors))
                    with tf.GradientTape(watch_accessed_variables=False) as inner:
                        inner.watch(tensors)
                        exact = equation(*tensors, *data)
                    parts = inner.gradient(exact, tensors, g, unconnected_gradients="zero")
                return outer.gradient(
                    parts, (g, *tensors), cotangents, unconnected_gradients="zero"
                )

            result, tape = (value, tapes.pop()) if tapes else run()
            return tape.gradient(result, at, g, unconnected_gradients="zero"), again

        return value, lambda g: gradients(g, *tensors)

    return value_of(*tensors)
