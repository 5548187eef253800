"""Symmetric tiles and their vector-Jacobian product, in TensorFlow."""

from typing import Any

import tensorflow as tf

from kinfold.core import pairs
from kinfold.streaming.symmetric import tiles, xla
from kinfold.streaming.symmetric.xla import Grid
from kinfold.streaming.tensorflow import compiled


def symmetric(family: Any, diagonal: bool, size: int, x: tf.Tensor, y: tf.Tensor) -> Any:
    return compiled(_symmetric, family, diagonal, size)(x, y)


def _symmetric(family: Any, diagonal: bool, size: int, x: Any, y: Any) -> Any:
    @tf.custom_gradient
    def rows(x: Any) -> Any:
        grid = Grid.of(x, y, diagonal, size)
        sums = xla.sums(family, grid)
        loss, valid = xla.combined(family, sums)

        def backward(g: Any, _: Any) -> Any:
            grid = Grid.of(x, y, diagonal, size)  # anew: XLA takes sizes from shapes alone
            side = _side(family, sums, grid.fill(g, 0.0))
            return grid.restore(xla.gradient(family, grid, side))

        return (grid.restore(loss), grid.restore(valid)), backward

    return rows(x)


def whole(family: Any, diagonal: bool, x: tf.Tensor, y: tf.Tensor) -> Any:
    @tf.custom_gradient
    def rows(x: Any) -> Any:
        d = family.distance.of_dot(x @ tf.transpose(x))
        masks = pairs.masks(y, y, rows=tf.range(tf.shape(y)[0]), diagonal=diagonal)
        sums, e = tiles.whole_sums(family, d, *masks)

        def backward(g: Any, _: Any) -> Any:
            return tiles.whole_gradient(family, x, d, e, _side(family, sums, g), masks[0])

        return xla.combined(family, sums), backward

    return rows(x)


def _side(family: Any, sums: Any, g: Any) -> Any:
    """What the gradient takes of each anchor, for the cotangent `g` of the losses."""
    valid = xla.valid_anchors(sums)
    values = xla.values(sums, valid)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        loss = xla.losses(family, values, valid)
    weights = tape.gradient(loss, values, g, unconnected_gradients="zero")
    return xla.side_of(sums, valid, weights)
