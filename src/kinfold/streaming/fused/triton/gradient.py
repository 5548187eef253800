"""The derivative of a loss with respect to the products of a tile, by the fused kernels.

With G_ij the derivative of the loss with respect to a dot product (or to a squared distance), the
gradient of a row is sum_j M_ij r_j, where M adds up what the row's own anchor and what the columns'
anchors make of the pair: G where the rows are anchors, G^T where the columns are, both where the
references are the anchors. A kernel writes a block of M in the precision of the embeddings, and a
matrix library multiplies it (`launch`).
"""

import triton
import triton.language as tl

from kinfold.streaming.fused.triton.forward import distances, pairs, products, rows_of


@triton.jit
def _share(logit, terms, at, offset, count, AXIS: tl.constexpr):
    """2^(logit - shift) * weight, for the anchors along an axis of a tile."""
    shift = tl.expand_dims(tl.load(terms + offset * count + at), AXIS)
    weight = tl.expand_dims(tl.load(terms + (offset + 1) * count + at), AXIS)
    return tl.exp2(logit - shift) * weight


@triton.jit
def _extra_share(logit, terms, at, count, EXTRA: tl.constexpr, AXIS: tl.constexpr):
    """The extra's derivative with respect to a positive's logit, times its weight."""
    g = tl.expand_dims(tl.load(terms + 4 * count + at), AXIS) + tl.zeros_like(logit)
    if EXTRA == "each":
        negatives = tl.expand_dims(tl.load(terms + 5 * count + at), AXIS)
        g = -g / (1.0 + tl.exp2(logit - negatives))
    return g


@triton.jit
def _of_negatives(
    d, terms, ref_terms, at, ref_at, n, m, n0, n1, s0, s1,
    N: tl.constexpr, NS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Derivative of the loss with respect to the distances of negative pairs."""
    logit = N(d, n0, n1)
    if ROWS and COLUMNS:
        g = _share(logit, terms, at, 2, n, 1) + _share(logit, ref_terms, ref_at, 2, m, 0)
    elif ROWS:
        g = _share(logit, terms, at, 2, n, 1)
    else:
        g = _share(logit, ref_terms, ref_at, 2, m, 0)
    return g * NS(d, s0, s1)


@triton.jit
def _of_positives(
    d, terms, ref_terms, at, ref_at, n, m, p0, p1, s0, s1,
    P: tl.constexpr, PS: tl.constexpr, EXTRA: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Derivative of the loss with respect to the distances of positive pairs."""
    logit = P(d, p0, p1)
    g = tl.zeros_like(d)
    if ROWS:
        g += _share(logit, terms, at, 0, n, 1)
        if EXTRA != "none":
            g += _extra_share(logit, terms, at, n, EXTRA, 1)
    if COLUMNS:
        g += _share(logit, ref_terms, ref_at, 0, m, 0)
        if EXTRA != "none":
            g += _extra_share(logit, ref_terms, ref_at, m, EXTRA, 0)
    return g * PS(d, s0, s1)


@triton.jit
def block_products(
    x, r, at, ref_at, place,
    GIVEN: tl.constexpr,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Dot products of a tile of a block; those at `place` in the block, where they are GIVEN."""
    if GIVEN:
        dot = tl.load(place)
    else:
        held = rows_of(x, at, 0, D, BK, WIDEN)
        ref_held = rows_of(r, ref_at, 0, D, BK, WIDEN)
        dot = products(x, r, held, ref_held, at, ref_at, D, BM, BN, BK, WIDEN)
    return dot


@triton.jit
def _of_dots(g, d, DISTANCE: tl.constexpr, DTYPE: tl.constexpr):
    """From distances to dot products, or to squared distances, in the dtype of the product."""
    if DISTANCE == "cosine":
        g = tl.where(d > 0.0, -g, 0.0)
    elif DISTANCE == "squared_euclidean":
        g = tl.where(d > 0.0, g, 0.0)
    elif DISTANCE == "euclidean":
        g = tl.where(d > 0.0, 0.5 * g / tl.where(d > 0.0, d, 1.0), 0.0)
    if tl.float16 == DTYPE:  # finite, also where an unbounded slope is not
        g = tl.minimum(tl.maximum(g, -65504.0), 65504.0)
    return g.to(DTYPE)


@triton.jit(do_not_specialize=["n", "m", "count", "ref_count"])
def derivatives(
    x, r, classes, ref_classes, positions, ref_positions, squares, ref_squares, scale,
    terms,  # float32 [6, count]: shift and weight of positives, of negatives, weight and N of extra
    ref_terms,  # float32 [6, ref_count]
    out,  # [n, m] of whole tiles, in the dtype of x; where products are GIVEN, those
    n, m, stride, count, ref_count,
    p0, p1, n0, n1,  # of the logits
    ps0, ps1, ns0, ns1,  # of their slopes
    P: tl.constexpr, N: tl.constexpr, PS: tl.constexpr, NS: tl.constexpr,
    DISTANCE: tl.constexpr, SCALED: tl.constexpr, DIAGONAL: tl.constexpr, GIVEN: tl.constexpr,
    EXTRA: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,  # which are anchors of the loss
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """M of a tile: the anchors, or the references, by the other side."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    column = tl.program_id(1) * BN + tl.arange(0, BN)
    at = tl.minimum(row, n - 1)
    ref_at = tl.minimum(column, m - 1)
    place = out + row[:, None] * stride + column[None, :]
    dot = block_products(x, r, at, ref_at, place, GIVEN, D, BM, BN, BK, WIDEN)
    square = tl.load(squares + at)
    d = distances(dot, square, ref_squares, ref_at, tl.load(scale), DISTANCE, SCALED)
    # Classes ascend: where the first of one side comes after the last of the other, none is equal.
    first = tl.load(classes + tl.program_id(0) * BM)
    last = tl.load(classes + tl.minimum(tl.program_id(0) * BM + BM, n) - 1)
    ref_first = tl.load(ref_classes + tl.program_id(1) * BN)
    ref_last = tl.load(ref_classes + tl.minimum(tl.program_id(1) * BN + BN, m) - 1)
    if (first <= ref_last) & (ref_first <= last):
        positive, negative = pairs(
            *(tl.load(classes + at), ref_classes, tl.load(positions + at), ref_positions),
            *(ref_at, column < m, DIAGONAL),
        )
        p = _of_positives(
            *(d, terms, ref_terms, at, ref_at, count, ref_count, p0, p1, ps0, ps1),
            *(P, PS, EXTRA, ROWS, COLUMNS),
        )
        n_g = _of_negatives(
            *(d, terms, ref_terms, at, ref_at, count, ref_count, n0, n1, ns0, ns1),
            *(N, NS, ROWS, COLUMNS),
        )
        g = tl.where(positive, p, tl.where(negative, n_g, 0.0))
    else:
        g = _of_negatives(
            *(d, terms, ref_terms, at, ref_at, count, ref_count, n0, n1, ns0, ns1),
            *(N, NS, ROWS, COLUMNS),
        )
    tl.store(place, _of_dots(g, d, DISTANCE, out.dtype.element_ty))
