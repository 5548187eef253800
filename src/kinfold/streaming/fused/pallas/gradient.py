"""The gradient by the fused kernels of Pallas.

As in `triton.gradient`: a kernel writes a block of derivatives in the precision of the embeddings,
and XLA multiplies it, in both directions, into float32 gradients.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from kinfold.streaming.fused.kernel import PAIRS
from kinfold.streaming.fused.pallas import kernels, launch
from kinfold.streaming.fused.pallas.kernels import INF
from kinfold.streaming.fused.pallas.launch import Setup, Side


def gradients(
    setup: Setup,
    sides: tuple[Side, Side],
    terms: tuple[Any, Any],
    of: tuple[bool, bool],
    scale: Any,
) -> list[Any]:
    """Gradients with respect to anchors and references, float32 [n, D], in the caller's order.

    Args:
        terms: what `statistics.terms` gives of either side.
        of: which sides are anchors of the loss.
    """
    anchors, references = sides
    symmetric = references is anchors
    squared = "euclidean" in setup.family.distance.name
    ordered = [_sorted(*both) for both in zip(sides, terms, of, strict=True)]

    def add(i: Any, j: Any, totals: Any, twice: bool = True) -> Any:
        own, other = anchors.cut(i), references.cut(j)
        block = _derivatives(setup, (own, other), ordered, (i, j), of, scale)
        totals = [_add(setup, totals[0], i, block, other.x, squared), *totals[1:]]
        if twice:  # the other gradient, or of the same what lies below the diagonal
            totals[-1] = _add(setup, totals[-1], j, block.T, own.x, squared)
        return totals

    shapes = [[side.x.shape, (len(side.x), 1)][: 1 + squared] for side in sides[: 2 - symmetric]]
    totals = [[jnp.zeros(shape, jnp.float32) for shape in every] for every in shapes]
    blocks = [(i, j) for i in anchors.starts() for j in references.starts()]
    if symmetric:
        totals = launch.over(
            [(i, j) for i, j in blocks if i == j], partial(add, twice=False), totals
        )
        blocks = [(i, j) for i, j in blocks if i < j]
    totals = launch.over(blocks, add, totals)
    found = []
    for side, (total, *pull) in zip(sides, totals, strict=False):
        if squared:
            total = 2.0 * (pull[0] * side.x.astype(jnp.float32) - total)
        if setup.family is PAIRS:  # only now: a factor would only be rounded where M is
            total *= scale.astype(jnp.float32)
        found.append(side.unsorted(total))
    return found


def _sorted(side: Side, terms: Any, wanted: bool) -> Any:
    """Terms [6, N] in the order of a side; zeros where nothing looks at them."""
    if not wanted:
        return jnp.zeros((6, len(side.x)), jnp.float32)
    more = (0, len(side.x) - len(side.order))
    fills = INF, 0.0, INF, 0.0, 0.0, INF
    both = zip(terms, fills, strict=True)
    return jnp.stack([jnp.pad(t[side.order], more, constant_values=fill) for t, fill in both])


def _derivatives(
    setup: Setup, sides: tuple[Side, Side], terms: Any, at: Any, of: Any, scale: Any
) -> Any:
    """The derivatives with respect to the products of a block, in the dtype of the embeddings."""
    plan, (own, other) = launch.plan_of(setup, setup.tiles.backward), sides
    tile, (n, m) = plan.tile, (side.block for side in sides)
    own_terms, other_terms = (
        jax.lax.dynamic_slice_in_dim(t, start, side.block, axis=1)
        for t, start, side in zip(terms, at, sides, strict=True)
    )
    given = setup.tiles.given
    return pl.pallas_call(
        partial(kernels.derivatives, plan, of),
        grid=(n // tile.rows, m // tile.columns),
        out_shape=jax.ShapeDtypeStruct((n, m), own.x.dtype),
        out_specs=pl.BlockSpec((tile.rows, tile.columns), lambda i, j: (i, j)),
        input_output_aliases={0: 0} if given else {},
        **launch.options(setup, plan),
    )(
        launch.dot(setup, own.x, other.x.T) if given else None,
        launch.refs_of(own, other, scale),
        own_terms,
        other_terms,
    )


def _add(setup: Setup, total: Any, start: Any, block: Any, other: Any, squared: bool) -> Any:
    """Add to the gradient from row `start` what derivatives make of the other side.

    Where distances are `squared` ones, the sums of the derivatives too.
    """
    more = [launch.dot(setup, block, other)]
    if squared:
        more.append(jnp.sum(block, 1, jnp.float32, keepdims=True))
    added = []
    for whole, part in zip(total, more, strict=True):
        part += jax.lax.dynamic_slice_in_dim(whole, start, len(part))
        added.append(jax.lax.dynamic_update_slice_in_dim(whole, part, start, axis=0))
    return added
