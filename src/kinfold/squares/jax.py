"""Squared distances in JAX: where different rows are too near, a block is computed again."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kinfold.squares import CENTRE, MIX, NEAR, odd_weights


def known(r: jax.Array) -> jax.Array:
    """||r||^2 and the mark of every row, [m, 2]."""
    return jnp.stack([_norms(r), _marks(r)], axis=1)


def squared(x: jax.Array, r: jax.Array, known: jax.Array | None) -> jax.Array:
    if known is not None:
        return _by_product(x, r, known[:, 0], known[:, 1], _by_column)
    return _by_product(x, r, _norms(r), _marks(r), _about_centre)


def _by_product(x: Any, r: Any, theirs: Any, marks: Any, otherwise: Callable[..., Any]) -> Any:
    """By the matrix product, or `otherwise(x, r)` where different rows are too near for it."""

    def value(ours: Any, theirs: Any, dot: Any) -> tuple[Any, Any]:
        square = ours[:, None] - 2.0 * dot + theirs
        return square, square < NEAR[str(x.dtype)] * (ours[:, None] + theirs)

    def product(x: Any, r: Any, *parts: Any) -> Any:
        square, near = value(*parts)
        # What is near here is equal. Nothing masks its gradient, which is 0 but for rounding.
        return square - jax.lax.stop_gradient(jnp.where(near, square, 0.0))

    parts = _norms(x), theirs, x @ r.T
    near = value(*jax.lax.stop_gradient(parts))[1]
    different = jnp.any(near & (_marks(x)[:, None] != marks))
    return jax.lax.cond(different, lambda x, r, *_: otherwise(x, r), product, x, r, *parts)


def _about_centre(x: Any, r: Any) -> Any:
    """By a matrix product about a common centre, which serves all that lie in one place."""
    at = jnp.arange(CENTRE) * (len(r) - 1) // (CENTRE - 1)
    centre = jnp.sort(jax.lax.stop_gradient(r[at]), axis=0)[CENTRE // 2]
    centre = jnp.where(jnp.isfinite(centre), centre, 0.0)
    about = r - centre
    # What is still too near is taken from the rows themselves: about the centre they are rounded.
    return _by_product(x - centre, about, _norms(about), _marks(about), lambda *_: _by_column(x, r))


def _by_column(x: Any, r: Any) -> Any:
    """From differences, one column of the embeddings after the other."""

    @jax.checkpoint  # or a gradient would keep the differences of all columns
    def part(k: Any, x: Any, r: Any) -> Any:
        a, b = (jax.lax.dynamic_slice_in_dim(rows, k, 1, axis=1) for rows in (x, r))
        return (a - b[:, 0]) ** 2

    def step(square: Any, k: Any) -> Any:
        return square + part(k, x, r), None

    start = jnp.zeros((len(x), len(r)), x.dtype)
    return jax.lax.scan(step, start, jnp.arange(x.shape[1]))[0]


def _norms(x: Any) -> Any:
    return jnp.sum(x * x, axis=-1)


def _marks(x: Any) -> Any:
    """A number for each row, the same for equal rows in whatever order it is summed up.

    It is whole and below 2^24, and so exact in the dtype of `x`.
    """
    x = jax.lax.stop_gradient(x)
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0, x), jnp.int32)  # -0.0 is 0.0
    bits = bits.reshape(len(x), -1) * jnp.int32(MIX)
    bits = bits ^ (bits >> 15)
    total = jnp.sum(bits * odd_weights(bits.shape[1]), axis=1)
    return ((total ^ (total >> 15)) & 0xFFFFFF).astype(x.dtype)
