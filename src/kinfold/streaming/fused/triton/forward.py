"""The fused kernels in Triton: a tile of logits never leaves the chip (see README.md).

One program holds some anchors and goes over all references, tile by tile: the product of a tile in
float32, the distance, the logits, and the running log-sum-exps (here) or the tile's part of a
gradient (`gradient`). Anchors and references come sorted by class, so that the
positives of a program's anchors lie in a run of tiles, its band; all others are clean: they hold
negatives only, and take neither classes nor masks. Clean tiles come first, then the band, then what
is left of the references where the tiles do not divide them. Rows come padded with zeros to a `D`
that the parts of a product divide.

A loss's logits and slopes, P, N, PS and NS, are functions of the distance and two numbers each. The
first number scales the logit: here it comes times log2(e), so that logits are exponents of 2.
DISTANCE is a name of `kinfold.distances`; SCALED takes the dot product times a number in memory.
EXTRA is a third statistic of an anchor, over its positives p: "mean", the sum of p - max p; or
"each", the sum of softplus(N - p). DIAGONAL says whether the reference at an anchor's own position
may be its positive. WIDEN serves Triton's interpreter, which multiplies bfloat16 as integers.
"""

import triton
import triton.language as tl

from kinfold.core.numerics import NOISE

NO_MORE: tl.constexpr = tl.constexpr(NOISE["float32"])  # than rounding is a cosine distance of 0


@triton.jit
def linear_logit(d, slope, offset):
    return slope * (d - offset)


@triton.jit
def linear_slope(d, slope, offset):
    return tl.zeros_like(d) + slope


@triton.jit
def rows_of(x, at, first, D: tl.constexpr, BLOCK: tl.constexpr, WIDEN: tl.constexpr):
    """Numbers `first` to `first + BLOCK` of the rows `at`."""
    part = tl.load(x + (at.to(tl.int64) * D)[:, None] + (first + tl.arange(0, BLOCK))[None, :])
    if WIDEN:
        part = part.to(tl.float32)
    return part


@triton.jit
def _relu(a):
    return tl.maximum(a, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def distances(
    x, r, held, ref_held, at, ref_at, square, ref_squares, scale, m,
    DISTANCE: tl.constexpr, SCALED: tl.constexpr,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Distances of a tile [BM, BN] in float32; of what is held, where that is whole rows."""
    dot = tl.zeros([BM, BN], tl.float32)
    if BK < D:
        for k in range(0, D, BK):
            a = rows_of(x, at, k, D, BK, WIDEN)
            b = rows_of(r, ref_at, k, D, BK, WIDEN)
            dot = tl.dot(a, tl.trans(b), dot, input_precision=PRECISION)
    elif SPLIT:
        # Always so; but a product in a branch of its own is laid out for itself, and not for the
        # product that follows, where few rows would have the warps repeat each other's work.
        if m > 0:
            dot = tl.dot(held, tl.trans(ref_held), dot, input_precision=PRECISION)
    else:
        dot = tl.dot(held, tl.trans(ref_held), dot, input_precision=PRECISION)
    if DISTANCE == "inner_product":
        if SCALED:
            dot = dot * scale
        return dot
    if DISTANCE == "cosine":
        d = 1.0 - dot
        return tl.where(d <= NO_MORE, 0.0, d)  # NaN stays
    d = _relu(square[:, None] - 2.0 * dot + tl.load(ref_squares + ref_at)[None, :])
    if DISTANCE == "euclidean":
        d = tl.sqrt(d)
    return d


@triton.jit
def clean_columns(i, start, stop, BN: tl.constexpr):
    """The columns of the i-th clean tile, of those around the band."""
    return tl.where(i < start, i, i + (stop - start)) * BN + tl.arange(0, BN)


@triton.jit
def band_columns(j, stop, m, BN: tl.constexpr):
    """Those of the j-th tile of the band, or of the rest after it; for loads, and which exist."""
    column = tl.where(j < stop, j, m // BN) * BN + tl.arange(0, BN)
    return tl.minimum(column, m - 1), column < m


@triton.jit
def pairs(
    cls, ref_classes, position, ref_positions, ref_at, real, DIAGONAL: tl.constexpr
):  # fmt: skip
    """Which pairs of a tile are positives, and which negatives."""
    ref_cls = tl.load(ref_classes + ref_at)
    positive = (cls[:, None] == ref_cls[None, :]) & real[None, :]
    negative = (cls[:, None] != ref_cls[None, :]) & real[None, :]
    if not DIAGONAL:
        positive = positive & (position[:, None] != tl.load(ref_positions + ref_at)[None, :])
    return positive, negative


@triton.jit
def _more(logit, largest, total):
    """A row's largest logit and the sum of 2^(logit - largest), with the logits of a tile."""
    new = tl.maximum(largest, tl.max(logit, 1))
    at = tl.where(new == float("-inf"), 0.0, new)
    total = total * tl.exp2(largest - at) + tl.sum(tl.exp2(logit - at[:, None]), 1)
    return new, total


@triton.jit
def _log_of_one_and(e):
    """log(1 + e), e from 0 to 1; of a small e the series, as 1 + e has lost most of its digits."""
    series = e * (1.0 - e * (0.5 - e * (1.0 / 3.0)))
    return tl.where(e < 0.02, series, tl.log(1.0 + e))


@triton.jit(do_not_specialize=["n", "m"])
def forward(
    x,  # [n, D]
    r,  # [m, D]
    classes,  # int32 [n], ascending
    ref_classes,  # int32 [m], ascending
    positions,  # int32 [n], in the order that the caller knows, which is that of `out`
    ref_positions,  # int32 [m]
    squares,  # float32 [n], of the rows; for the Euclidean distances
    ref_squares,  # float32 [m]
    bands,  # int32 [programs, 2], the first tile of a band and the one after it, of the whole tiles
    scale,  # float32 [1]
    out,  # float32 [6, n]: largest and total of positives, of negatives, the extra and its pull
    n, m, p0, p1, n0, n1,
    P: tl.constexpr, N: tl.constexpr,
    DISTANCE: tl.constexpr, SCALED: tl.constexpr, DIAGONAL: tl.constexpr, EXTRA: tl.constexpr,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Statistics of each anchor, of logits that are exponents of 2."""
    pid = tl.program_id(0)
    row = pid * BM + tl.arange(0, BM)
    at = tl.minimum(row, n - 1)  # a row too many is computed and dropped
    cls = tl.load(classes + at)
    position = tl.load(positions + at)
    square = tl.load(squares + at)
    times = tl.load(scale)
    start = tl.load(bands + 2 * pid)
    stop = tl.load(bands + 2 * pid + 1)
    clean = m // BN - (stop - start)
    rest = stop + tl.cdiv(m, BN) - m // BN
    held = rows_of(x, at, 0, D, BK, WIDEN)
    nothing = tl.zeros([BM], tl.float32)
    p_largest = nothing + float("-inf")
    n_largest = nothing + float("-inf")
    p_total = nothing
    n_total = nothing
    for i in range(0, clean):
        ref_at = clean_columns(i, start, stop, BN)
        ref_held = rows_of(r, ref_at, 0, D, BK, WIDEN)
        d = distances(
            *(x, r, held, ref_held, at, ref_at, square, ref_squares, times, m),
            *(DISTANCE, SCALED, D, BM, BN, BK, PRECISION, WIDEN, False),
        )
        n_largest, n_total = _more(N(d, n0, n1), n_largest, n_total)
    for j in range(start, rest):
        ref_at, real = band_columns(j, stop, m, BN)
        ref_held = rows_of(r, ref_at, 0, D, BK, WIDEN)
        d = distances(
            *(x, r, held, ref_held, at, ref_at, square, ref_squares, times, m),
            *(DISTANCE, SCALED, D, BM, BN, BK, PRECISION, WIDEN, False),
        )
        positive, negative = pairs(
            cls, ref_classes, position, ref_positions, ref_at, real, DIAGONAL
        )
        logit = tl.where(positive, P(d, p0, p1), float("-inf"))
        p_largest, p_total = _more(logit, p_largest, p_total)
        logit = tl.where(negative, N(d, n0, n1), float("-inf"))
        n_largest, n_total = _more(logit, n_largest, n_total)
    real_row = row < n
    tl.store(out + position, p_largest, mask=real_row)
    tl.store(out + n + position, p_total, mask=real_row)
    tl.store(out + 2 * n + position, n_largest, mask=real_row)
    tl.store(out + 3 * n + position, n_total, mask=real_row)
    if EXTRA != "none":
        extra = nothing
        pull = nothing
        negatives = tl.log2(tl.where(n_total > 0.0, n_total, 1.0))
        for j in range(start, rest):
            ref_at, real = band_columns(j, stop, m, BN)
            ref_held = rows_of(r, ref_at, 0, D, BK, WIDEN)
            d = distances(
                *(x, r, held, ref_held, at, ref_at, square, ref_squares, times, m),
                *(DISTANCE, SCALED, D, BM, BN, BK, PRECISION, WIDEN, False),
            )
            positive, _ = pairs(cls, ref_classes, position, ref_positions, ref_at, real, DIAGONAL)
            logit = P(d, p0, p1)
            if EXTRA == "mean":
                extra += tl.sum(tl.where(positive, logit - p_largest[:, None], 0.0), 1)
            else:
                gap = (n_largest[:, None] - logit) + negatives[:, None]
                gap = tl.where(positive, gap, 0.0)
                e = tl.exp2(-tl.abs(gap))
                softplus = tl.maximum(gap, 0.0) * 0.6931471805599453 + _log_of_one_and(e)
                sigmoid = tl.where(gap > 0.0, 1.0, e) / (1.0 + e)
                extra += tl.sum(tl.where(positive, softplus, 0.0), 1)
                pull += tl.sum(tl.where(positive, sigmoid, 0.0), 1)
        tl.store(out + 4 * n + position, extra, mask=real_row)
        tl.store(out + 5 * n + position, pull, mask=real_row)
