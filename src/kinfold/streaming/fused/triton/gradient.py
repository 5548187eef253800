"""The gradient of the fused kernels: a tile is computed again, and multiplied by its references.

With G_ij the derivative of the loss with respect to a dot product (or to a squared distance), the
gradient of a row is sum_j M_ij r_j, where M adds up what the row's own anchor and what the columns'
anchors make of the pair: G where the rows are anchors, G^T where the columns are, both where the
references are the anchors. One product a tile, no atomics, the same sum on every run.
"""

import triton
import triton.language as tl

from kinfold.streaming.fused.triton.forward import (
    band_columns,
    clean_columns,
    distances,
    pairs,
    rows_of,
)


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
def _of_dots(
    g, d,
    DISTANCE: tl.constexpr, DTYPE: tl.constexpr, PRECISION: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """From distances to dot products, or to squared distances, in the dtype of the product."""
    if DISTANCE == "cosine":
        g = tl.where(d > 0.0, -g, 0.0)
    elif DISTANCE == "squared_euclidean":
        g = tl.where(d > 0.0, g, 0.0)
    elif DISTANCE == "euclidean":
        g = tl.where(d > 0.0, 0.5 * g / tl.where(d > 0.0, d, 1.0), 0.0)
    if tl.float16 == DTYPE:  # finite, also where an unbounded slope is not
        g = tl.minimum(tl.maximum(g, -65504.0), 65504.0)
    g = g.to(DTYPE)
    if SPLIT:  # what is moved by hand is not computed again by the warps that need it too
        OP: tl.constexpr = "cvt.rna.tf32.f32" if PRECISION == "tf32" else "mov.b32"
        PACK: tl.constexpr = 1 if tl.float32 == DTYPE else 2
        g = tl.inline_asm_elementwise(OP + " $0, $1;", "=r,r", [g], g.dtype, False, PACK)
    return g


@triton.jit
def _add(
    gradient, row_sum, g, r, ref_held, ref_at, part,
    DISTANCE: tl.constexpr, D: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """With a tile's part: the product of its derivatives and its references."""
    if DISTANCE == "euclidean" or DISTANCE == "squared_euclidean":
        row_sum += tl.sum(g.to(tl.float32), 1)
    if WIDEN:
        g = g.to(tl.float32)
    if BD == D and BK == D:
        gradient = tl.dot(g, ref_held, gradient, input_precision=PRECISION)
    else:
        b = rows_of(r, ref_at, part, D, BD, WIDEN)
        gradient = tl.dot(g, b, gradient, input_precision=PRECISION)
    return gradient, row_sum


@triton.jit(do_not_specialize=["n", "m", "width"])
def backward(
    x, r, classes, ref_classes, positions, ref_positions, squares, ref_squares, bands, scale,
    terms,  # float32 [6, n]: shift and weight of positives, of negatives, weight and N of the extra
    ref_terms,  # float32 [6, m]
    factor,  # float32 [1], that the gradient is multiplied by
    out,  # [n, width], in the order of `positions`
    n, m, width,
    p0, p1, n0, n1,  # of the logits
    ps0, ps1, ns0, ns1,  # of their slopes
    P: tl.constexpr, N: tl.constexpr, PS: tl.constexpr, NS: tl.constexpr,
    DISTANCE: tl.constexpr, SCALED: tl.constexpr, DIAGONAL: tl.constexpr, EXTRA: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,  # which are anchors of the loss
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    BD: tl.constexpr,  # numbers of a row that a program takes the gradient of
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, SPLIT: tl.constexpr,
    DTYPE: tl.constexpr,  # of x, in which the second product is taken
):  # fmt: skip
    """Gradient with respect to `x`: the anchors, or the references, and `r` the other side."""
    pid = tl.program_id(0)
    part = tl.program_id(1) * BD
    row = pid * BM + tl.arange(0, BM)
    at = tl.minimum(row, n - 1)
    cls = tl.load(classes + at)
    position = tl.load(positions + at)
    square = tl.load(squares + at)
    times = tl.load(scale)
    start = tl.load(bands + 2 * pid)
    stop = tl.load(bands + 2 * pid + 1)
    clean = m // BN - (stop - start)
    rest = stop + tl.cdiv(m, BN) - m // BN
    held = rows_of(x, at, 0, D, BK, WIDEN)
    gradient = tl.zeros([BM, BD], tl.float32)
    row_sum = tl.zeros([BM], tl.float32)
    for i in range(0, clean):
        ref_at = clean_columns(i, start, stop, BN)
        ref_held = rows_of(r, ref_at, 0, D, BK, WIDEN)
        d = distances(
            *(x, r, held, ref_held, at, ref_at, square, ref_squares, times, m),
            *(DISTANCE, SCALED, D, BM, BN, BK, PRECISION, WIDEN, SPLIT),
        )
        g = _of_negatives(
            *(d, terms, ref_terms, at, ref_at, n, m, n0, n1, ns0, ns1, N, NS, ROWS, COLUMNS)
        )
        g = _of_dots(g, d, DISTANCE, DTYPE, PRECISION, SPLIT)
        gradient, row_sum = _add(
            *(gradient, row_sum, g, r, ref_held, ref_at, part),
            *(DISTANCE, D, BK, BD, PRECISION, WIDEN),
        )
    for j in range(start, rest):
        ref_at, real = band_columns(j, stop, m, BN)
        ref_held = rows_of(r, ref_at, 0, D, BK, WIDEN)
        d = distances(
            *(x, r, held, ref_held, at, ref_at, square, ref_squares, times, m),
            *(DISTANCE, SCALED, D, BM, BN, BK, PRECISION, WIDEN, SPLIT),
        )
        positive, negative = pairs(
            cls, ref_classes, position, ref_positions, ref_at, real, DIAGONAL
        )
        g = _of_negatives(
            *(d, terms, ref_terms, at, ref_at, n, m, n0, n1, ns0, ns1, N, NS, ROWS, COLUMNS)
        )
        p = _of_positives(
            *(d, terms, ref_terms, at, ref_at, n, m, p0, p1, ps0, ps1),
            *(P, PS, EXTRA, ROWS, COLUMNS),
        )
        g = tl.where(positive, p, tl.where(negative, g, 0.0))
        g = _of_dots(g, d, DISTANCE, DTYPE, PRECISION, SPLIT)
        gradient, row_sum = _add(
            *(gradient, row_sum, g, r, ref_held, ref_at, part),
            *(DISTANCE, D, BK, BD, PRECISION, WIDEN),
        )
    if DISTANCE == "euclidean" or DISTANCE == "squared_euclidean":
        own = rows_of(x, at, part, D, BD, WIDEN).to(tl.float32)
        gradient = 2.0 * (row_sum[:, None] * own - gradient)
    gradient = gradient * tl.load(factor)
    if SCALED:  # only now: a factor would only be rounded where G is
        gradient = gradient * times
    place = position.to(tl.int64) * width
    column = part + tl.arange(0, BD)
    real_entry = (row < n)[:, None] & (column < width)[None, :]
    gradient = gradient.to(out.dtype.element_ty)
    tl.store(out + place[:, None] + column[None, :], gradient, mask=real_entry)
