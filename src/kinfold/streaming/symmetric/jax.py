"""Symmetric tiles and their vector-Jacobian product, in JAX."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kinfold.core import pairs
from kinfold.streaming.symmetric import tiles, xla
from kinfold.streaming.symmetric.xla import Grid


@partial(jax.jit, static_argnums=(0, 1, 2))
def symmetric(family: Any, diagonal: bool, size: int, x: jax.Array, y: jax.Array) -> Any:
    return _symmetric(family, diagonal, size, x, y)


@partial(jax.jit, static_argnums=(0, 1))
def whole(family: Any, diagonal: bool, x: jax.Array, y: jax.Array) -> Any:
    return _whole(family, diagonal, x, y)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _symmetric(family: Any, diagonal: bool, size: int, x: Any, y: Any) -> Any:
    return _symmetric_forward(family, diagonal, size, x, y)[0]


def _symmetric_forward(family: Any, diagonal: bool, size: int, x: Any, y: Any) -> Any:
    grid = Grid.of(x, y, diagonal, size)
    sums = xla.sums(family, grid)
    loss, valid = xla.combined(family, sums)
    return (grid.restore(loss), grid.restore(valid)), (x, y, sums)


def _symmetric_backward(family: Any, diagonal: bool, size: int, saved: Any, cotangents: Any) -> Any:
    x, y, sums = saved
    grid = Grid.of(x, y, diagonal, size)
    side = _side(family, sums, grid.fill(cotangents[0], 0.0))
    return grid.restore(xla.gradient(family, grid, side)), None


_symmetric.defvjp(_symmetric_forward, _symmetric_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _whole(family: Any, diagonal: bool, x: Any, y: Any) -> Any:
    return _whole_forward(family, diagonal, x, y)[0]


def _whole_forward(family: Any, diagonal: bool, x: Any, y: Any) -> Any:
    d = family.distance.of_dot(x @ x.T)
    masks = pairs.masks(y, y, rows=jnp.arange(len(y)), diagonal=diagonal)
    sums, e = tiles.whole_sums(family, d, *masks)
    return xla.combined(family, sums), (x, d, e, masks[0], sums)


def _whole_backward(family: Any, diagonal: bool, saved: Any, cotangents: Any) -> Any:
    x, d, e, positive, sums = saved
    side = _side(family, sums, cotangents[0])
    return tiles.whole_gradient(family, x, d, e, side, positive), None


_whole.defvjp(_whole_forward, _whole_backward)


def _side(family: Any, sums: Any, g: Any) -> Any:
    """What the gradient takes of each anchor, for the cotangent `g` of the losses."""
    valid = xla.valid_anchors(sums)
    values = xla.values(sums, valid)
    _, pull = jax.vjp(lambda values: xla.losses(family, values, valid), values)
    return xla.side_of(sums, valid, *pull(g))
