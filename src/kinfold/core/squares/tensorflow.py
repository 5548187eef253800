"""Squared distances in TensorFlow: where different rows are too near, a block is computed again."""

import functools
from typing import Any

import tensorflow as tf

from kinfold.core.squares import MIX, NEAR, odd_weights


def known(r: tf.Tensor) -> tf.Tensor:
    """||r||^2 and the mark of every row, [m, 2]."""
    return tf.stack([_norms(r), _marks(r)], axis=1)


def squared(x: tf.Tensor, r: tf.Tensor, known: tf.Tensor | None) -> tf.Tensor:
    return _between(x, r, known, root=False)


def distance(x: tf.Tensor, r: tf.Tensor, known: tf.Tensor | None) -> tf.Tensor:
    return _between(x, r, known, root=True)


def _between(x: tf.Tensor, r: tf.Tensor, known: tf.Tensor | None, root: bool) -> tf.Tensor:
    theirs, marks = (_norms(r), _marks(r)) if known is None else tf.unstack(known, axis=1)

    @tf.custom_gradient
    def between(x: Any, r: Any) -> Any:
        value, different = _by_product(x, r, theirs, marks, root)

        def pull(a: Any, b: Any, g: Any, of_columns: bool) -> Any:
            def in_float64() -> Any:
                a64, b64, g64 = (tf.cast(part, "float64") for part in (a, b, g))
                return tf.cast(_pull(a64, b64, g64, of_columns), a.dtype)

            # Outside of the `cond`, in which a processor would take one thread.
            product = _pull(a, b, g, of_columns)
            exact = tf.cond(different, in_float64, lambda: tf.zeros_like(a))
            return tf.where(different, exact, product)

        def backward(g: Any) -> Any:
            if root:
                g = g * tf.math.divide_no_nan(0.5 * tf.ones_like(value), value)
            return pull(x, r, g, False), pull(r, x, g, True)

        return value, backward

    return between(x, r)


def _by_product(x: Any, r: Any, theirs: Any, marks: Any, root: bool) -> tuple[Any, Any]:
    """By a matrix product where it tells; and whether different rows are too near for it."""
    of_square = tf.sqrt if root else tf.identity
    ours, dot = _norms(x)[:, None], tf.matmul(x, r, transpose_b=True)
    square = ours - 2.0 * dot + theirs
    near = square < NEAR[x.dtype.name] * (ours + theirs)
    value = of_square(tf.where(near, tf.zeros_like(square), square))  # what is near is equal, but
    unequal = (value == 0) & (_marks(x)[:, None] != marks)
    # By rows first, which the threads of a processor share.
    different = tf.reduce_sum(tf.reduce_max(tf.cast(unequal, "int32"), axis=1)) > 0

    def exact(_: Any, value: Any) -> tuple[Any, Any]:
        if x.dtype == tf.float64:
            found = of_square(_by_differences(x, r))
        else:
            x64, r64 = tf.cast(x, "float64"), tf.cast(r, "float64")
            found = tf.cast(_by_product(x64, r64, _norms(r64), _marks(r64), root)[0], x.dtype)
        return tf.constant(False), tf.ensure_shape(found, value.shape)

    # A loop of one round or none: what it starts with is written once, and read by all.
    return tf.while_loop(lambda again, _: again, exact, (different, value))[1], different


@functools.partial(tf.function, jit_compile=True, autograph=False)  # holds no [t, m, d]
def _by_differences(x: Any, r: Any) -> Any:
    return tf.reduce_sum(tf.square(x[:, None] - r), axis=-1)


def _pull(a: Any, b: Any, g: Any, of_columns: bool) -> Any:
    """2 sum_j g_ij (a_i - b_j); or of g_ji."""
    sums = tf.reduce_sum(g, axis=0 if of_columns else 1)
    return 2.0 * (a * sums[:, None] - tf.matmul(g, b, transpose_a=of_columns))


def _norms(x: Any) -> Any:
    return tf.reduce_sum(x * x, axis=-1)


def _marks(x: Any) -> Any:
    """A number for each row, the same for equal rows in whatever order it is summed up.

    It is whole and below 2^24, and so exact in the dtype of `x`.
    """
    bits = tf.bitcast(tf.where(x == 0, tf.zeros_like(x), x), tf.int32)  # -0.0 is 0.0
    width = x.shape[1] * x.dtype.size // 4
    bits = tf.reshape(bits, [-1, width]) * MIX
    bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, 15))
    total = tf.reduce_sum(bits * odd_weights(width), axis=1)
    total = tf.bitwise.bitwise_xor(total, tf.bitwise.right_shift(total, 15))
    return tf.cast(tf.bitwise.bitwise_and(total, 0xFFFFFF), x.dtype)
