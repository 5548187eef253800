"""Squared distances in JAX: where different rows are too near, a block is computed again."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kinfold.core.squares import CENTRE, FAR, MIX, NEAR, odd_weights


def known(r: jax.Array) -> jax.Array:
    """||r - centre||^2 and the mark of every row, [m, 2]."""
    return jnp.stack([_norms(r - _centre(r)), _marks(r)], axis=1)


@partial(jax.jit, inline=True)  # eager callers would compile the two ways at every call
def squared(x: jax.Array, r: jax.Array, known_of_r: jax.Array | None) -> jax.Array:
    return _between(False, x, r, known_of_r)[0]


@partial(jax.jit, inline=True)
def distance(x: jax.Array, r: jax.Array, known_of_r: jax.Array | None) -> jax.Array:
    """Roots come out of the `cond`: they are written once, and not taken again by each reader."""
    return _between(True, x, r, known_of_r)[0]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _between(root: bool, x: Any, r: Any, known_of_r: Any) -> tuple[Any, Any]:
    """[t, m], and whether different rows were too near for the matrix product."""
    of_square = jnp.sqrt if root else lambda square: square
    centre = _centre(r)
    from_x, from_r = x - centre, r - centre
    theirs, marks = (_norms(from_r), _marks(r)) if known_of_r is None else known_of_r.T
    ours, dot = _norms(from_x), from_x @ from_r.T

    def value(ours: Any, theirs: Any, dot: Any) -> tuple[Any, Any]:
        square = ours[:, None] - 2.0 * dot + theirs
        return square, square < NEAR[str(x.dtype)] * (ours[:, None] + theirs)

    def by_product(x: Any, r: Any, *parts: Any) -> Any:
        square, near = value(*parts)
        return of_square(jnp.where(near, 0.0, square))  # what is near here is equal

    def by_differences(x: Any, r: Any, *_: Any) -> Any:
        return of_square(_over_columns(lambda a, b: (a - b) ** 2, x, r))

    _, near = value(ours, theirs, dot)
    different = jnp.any(near & (_marks(x)[:, None] != marks))
    ways = by_differences, by_product
    return jax.lax.cond(different, *ways, x, r, ours, theirs, dot), different


@_between.defjvp
def _between_jvp(root: bool, primals: Any, tangents: Any) -> Any:
    x, r, _ = primals
    dx, dr, _ = tangents
    found, different = _between(root, *primals)

    def none(x: Any, r: Any, *_: Any) -> Any:
        return jnp.zeros((len(x), len(r)), x.dtype)

    # Each way has its share, one of them nothing, so that the product stays outside of the `cond`:
    # inside, a processor takes one thread.
    exact = jax.lax.cond(different, _differential, none, x, r, dx, dr)
    dx, dr = (jnp.where(different, 0.0, change) for change in (dx, dr))
    centre = _centre(r)
    x, r = 2.0 * (x - centre), 2.0 * (r - centre)  # so that the [t, m] is not multiplied anew
    along = jnp.sum(x * dx, axis=-1)[:, None] + jnp.sum(r * dr, axis=-1)
    change = exact + along + dx @ -r.T + -x @ dr.T
    if root:
        apart = found != 0  # at 0 the gradient is 0
        change = change * jnp.where(apart, 0.5 / jnp.where(apart, found, 1.0), 0.0)
    return (found, different), (change, jnp.zeros(different.shape, jax.dtypes.float0))


def _centre(r: Any) -> Any:
    """The place of rows that lie together far from the origin, by a sample of them; else 0."""
    sample = jax.lax.stop_gradient(r[jnp.arange(CENTRE) * (len(r) - 1) // (CENTRE - 1)])
    centre = jnp.sort(sample, axis=0)[CENTRE // 2]
    far = jnp.sum(centre * centre) > FAR * jnp.max(jnp.sum((sample - centre) ** 2, axis=1))
    return jnp.where(far & jnp.all(jnp.isfinite(centre)), centre, 0.0)


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
