"""Squared distances in JAX: where different rows are too near, a block is computed again."""

from typing import Any

import jax
import jax.numpy as jnp

from kinfold.squares import CENTRE, MIX, NEAR, odd_weights

# What a block was computed by: a matrix product, one about a centre, or differences.
PRODUCT, CENTRED, DIFFERENCES = range(3)


def known(r: jax.Array) -> jax.Array:
    """||r||^2 and the mark of every row, [m, 2]."""
    return jnp.stack([_norms(r), _marks(r)], axis=1)


def squared(x: jax.Array, r: jax.Array, known: jax.Array | None) -> jax.Array:
    return _squared(x, r, known)[0]


@jax.custom_jvp
def _squared(x: Any, r: Any, known: Any) -> tuple[Any, Any]:
    """[t, m], and what it was computed by."""
    if known is None:
        return _by_product(x, r, _norms(r), _marks(r), _about_centre, PRODUCT)
    return _by_product(x, r, known[:, 0], known[:, 1], _by_differences, PRODUCT)


@_squared.defjvp
def _squared_jvp(primals: Any, tangents: Any) -> Any:
    x, r, _ = primals
    dx, dr, _ = tangents
    square, way = _squared(*primals)

    def product(x: Any, r: Any, dx: Any, dr: Any) -> Any:
        along = jnp.sum(x * dx, axis=-1)[:, None] + jnp.sum(r * dr, axis=-1)
        return 2.0 * (along - dx @ r.T - x @ dr.T)

    def centred(x: Any, r: Any, dx: Any, dr: Any) -> Any:
        centre = _centre(r)
        return product(x - centre, r - centre, dx, dr)

    ways = (product, centred, _differential)
    change = jax.lax.switch(way, ways, x, r, dx, dr)
    return (square, way), (change, jnp.zeros(way.shape, jax.dtypes.float0))


def _by_product(x: Any, r: Any, theirs: Any, marks: Any, otherwise: Any, way: int) -> Any:
    """By the matrix product, or `otherwise(x, r)` where different rows are too near for it."""
    ours, dot = _norms(x), x @ r.T

    def value(ours: Any, theirs: Any, dot: Any) -> tuple[Any, Any]:
        square = ours[:, None] - 2.0 * dot + theirs
        return square, square < NEAR[str(x.dtype)] * (ours[:, None] + theirs)

    def product(x: Any, r: Any, *parts: Any) -> Any:
        square, near = value(*parts)
        return jnp.where(near, 0.0, square), jnp.int32(way)  # what is near here is equal

    _, near = value(ours, theirs, dot)
    different = jnp.any(near & (_marks(x)[:, None] != marks))
    return jax.lax.cond(
        different, lambda x, r, *_: otherwise(x, r), product, x, r, ours, theirs, dot
    )


def _about_centre(x: Any, r: Any) -> Any:
    """By a matrix product about a common centre, which serves all that lie in one place."""
    centre = _centre(r)
    about = r - centre
    # What is still too near is taken from the rows themselves: about the centre they are rounded.
    return _by_product(
        x - centre, about, _norms(about), _marks(about), lambda *_: _by_differences(x, r), CENTRED
    )


def _centre(r: Any) -> Any:
    at = jnp.arange(CENTRE) * (len(r) - 1) // (CENTRE - 1)
    centre = jnp.sort(jax.lax.stop_gradient(r[at]), axis=0)[CENTRE // 2]
    return jnp.where(jnp.isfinite(centre), centre, 0.0)


def _by_differences(x: Any, r: Any) -> Any:
    return _over_columns(lambda a, b: (a - b) ** 2, x, r), jnp.int32(DIFFERENCES)


def _differential(x: Any, r: Any, dx: Any, dr: Any) -> Any:
    return _over_columns(lambda a, b, da, db: 2.0 * (a - b) * (da - db), x, r, dx, dr)


def _over_columns(of_column: Any, *rows: Any) -> Any:
    """Sum over the columns of rows that belong to anchors and references in turn, [t, m]."""

    @jax.checkpoint  # or a gradient would keep the differences of all columns
    def part(k: Any, *rows: Any) -> Any:
        columns = [jax.lax.dynamic_slice_in_dim(a, k, 1, axis=1) for a in rows]
        return of_column(*(c[:, 0] if i % 2 else c for i, c in enumerate(columns)))

    def step(total: Any, k: Any) -> Any:
        return total + part(k, *rows), None

    start = jnp.zeros((len(rows[0]), len(rows[1])), rows[0].dtype)
    return jax.lax.scan(step, start, jnp.arange(rows[0].shape[1]))[0]


def _norms(x: Any) -> Any:
    return jnp.sum(x * x, axis=-1)


def _marks(x: Any) -> Any:
    """A number for each row, the same for equal rows in whatever order it is summed up.

    It is whole and below 2^24, and so exact in the dtype of `x`.
    """
    bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0, x), jnp.int32)  # -0.0 is 0.0
    bits = bits.reshape(len(x), -1) * jnp.int32(MIX)
    bits = bits ^ (bits >> 15)
    total = jnp.sum(bits * odd_weights(bits.shape[1]), axis=1)
    return ((total ^ (total >> 15)) & 0xFFFFFF).astype(x.dtype)
