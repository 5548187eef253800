"""The fused kernels in Triton: a tile of logits never leaves the chip (see README.md).

One program holds some anchors and goes over references, tile by tile: the product of a tile in
float32, the distance, the logits, and the running log-sum-exps (here) or what becomes of the
gradient (`gradient`). Anchors and references come sorted by class, so that the positives of a
program's anchors lie in a run of tiles, its band; all others are clean: they hold negatives only,
and take neither classes nor masks. Rows come padded with zeros to a `D` that the parts of a product
divide. Products of float32 are GIVEN: a matrix library has taken them.

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
def products(
    x, r, held, ref_held, at, ref_at,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Dot products of a tile [BM, BN] in float32; of what is held, where that is whole rows."""
    dot = tl.zeros([BM, BN], tl.float32)
    if BK < D:
        for k in range(0, D, BK):
            a = rows_of(x, at, k, D, BK, WIDEN)
            b = rows_of(r, ref_at, k, D, BK, WIDEN)
            dot = tl.dot(a, tl.trans(b), dot, input_precision="ieee")
    else:
        dot = tl.dot(held, tl.trans(ref_held), dot, input_precision="ieee")
    return dot


@triton.jit
def distances(
    dot, square, ref_squares, ref_at, scale, DISTANCE: tl.constexpr, SCALED: tl.constexpr
):  # fmt: skip
    """From dot products."""
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
def _tile(
    x, r, held, dots, at, ref_at, square, ref_squares, scale, m,
    DISTANCE: tl.constexpr, SCALED: tl.constexpr, GIVEN: tl.constexpr,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Distances of a tile."""
    if GIVEN:
        dot = tl.load(dots + at[:, None] * m + ref_at[None, :])
    else:
        ref_held = rows_of(r, ref_at, 0, D, BK, WIDEN)
        dot = products(x, r, held, ref_held, at, ref_at, D, BM, BN, BK, WIDEN)
    return distances(dot, square, ref_squares, ref_at, scale, DISTANCE, SCALED)


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
def log_of_one_and(e):
    """log(1 + e), e from 0 to 1, to 2e-7 of its value: log(1 + e) / e is almost a polynomial."""
    p = 0.005105825797115468 * e - 0.028991956381178276
    p = p * e + 0.07738073836678133
    p = p * e - 0.1359060023456741
    p = p * e + 0.19071309583024815
    p = p * e - 0.24833945456759307
    p = p * e + 0.3331793432197321
    p = p * e - 0.49999435690452204
    return (p * e + 0.9999999651599141) * e


@triton.jit(do_not_specialize=["n", "m"])
def sums(
    x,  # [n, D]
    r,  # [m, D]
    classes,  # int32 [n], ascending
    ref_classes,  # int32 [m], ascending
    positions,  # int32 [n], where the caller has them
    ref_positions,  # int32 [m]
    squares,  # float32 [n], of the rows; for the Euclidean distances
    ref_squares,  # float32 [m]
    bands,  # int32 [programs, 2], the first tile of a band and the one after it, of the whole tiles
    scale,  # float32 [1]
    dots,  # float32 [n, m], where they are given
    out,  # float32 [parts, 4, n]: largest and total of positives, of negatives
    n, m, p0, p1, n0, n1,
    P: tl.constexpr, N: tl.constexpr,
    DISTANCE: tl.constexpr, SCALED: tl.constexpr, DIAGONAL: tl.constexpr, GIVEN: tl.constexpr,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Both log-sum-exps of each anchor over a part of the references, as exponents of 2."""
    pid = tl.program_id(0)
    part = tl.program_id(1)
    parts = tl.num_programs(1)
    row = pid * BM + tl.arange(0, BM)
    at = tl.minimum(row, n - 1)  # a row too many is computed and dropped
    cls = tl.load(classes + at)
    position = tl.load(positions + at)
    square = tl.load(squares + at)
    times = tl.load(scale)
    start = tl.load(bands + 2 * pid)
    stop = tl.load(bands + 2 * pid + 1)
    clean = m // BN - (stop - start)
    mixed = stop - start + tl.cdiv(m, BN) - m // BN
    held = rows_of(x, at, 0, D, BK, WIDEN)
    nothing = tl.zeros([BM], tl.float32)
    p_largest = nothing + float("-inf")
    n_largest = nothing + float("-inf")
    p_total = nothing
    n_total = nothing
    for i in range(part * clean // parts, (part + 1) * clean // parts):
        ref_at = clean_columns(i, start, stop, BN)
        d = _tile(
            *(x, r, held, dots, at, ref_at, square, ref_squares, times, m),
            *(DISTANCE, SCALED, GIVEN, D, BM, BN, BK, WIDEN),
        )
        n_largest, n_total = _more(N(d, n0, n1), n_largest, n_total)
    for j in range(start + part * mixed // parts, start + (part + 1) * mixed // parts):
        ref_at, real = band_columns(j, stop, m, BN)
        d = _tile(
            *(x, r, held, dots, at, ref_at, square, ref_squares, times, m),
            *(DISTANCE, SCALED, GIVEN, D, BM, BN, BK, WIDEN),
        )
        positive, negative = pairs(
            cls, ref_classes, position, ref_positions, ref_at, real, DIAGONAL
        )
        logit = tl.where(positive, P(d, p0, p1), float("-inf"))
        p_largest, p_total = _more(logit, p_largest, p_total)
        logit = tl.where(negative, N(d, n0, n1), float("-inf"))
        n_largest, n_total = _more(logit, n_largest, n_total)
    real_row = row < n
    out = out + part * 4 * n + row
    tl.store(out, p_largest, mask=real_row)
    tl.store(out + n, p_total, mask=real_row)
    tl.store(out + 2 * n, n_largest, mask=real_row)
    tl.store(out + 3 * n, n_total, mask=real_row)


@triton.jit(do_not_specialize=["n", "m"])
def extras(
    x, r, classes, ref_classes, positions, ref_positions, squares, ref_squares, bands, scale,
    stats,  # float32 [4, n], as `sums` has them
    out,  # float32 [2, n]: the extra statistic and its pull
    n, m, p0, p1,
    P: tl.constexpr,
    DISTANCE: tl.constexpr, SCALED: tl.constexpr, DIAGONAL: tl.constexpr, EXTRA: tl.constexpr,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """The extra statistic of each anchor, from its band."""
    pid = tl.program_id(0)
    row = pid * BM + tl.arange(0, BM)
    at = tl.minimum(row, n - 1)
    cls = tl.load(classes + at)
    position = tl.load(positions + at)
    square = tl.load(squares + at)
    times = tl.load(scale)
    start = tl.load(bands + 2 * pid)
    stop = tl.load(bands + 2 * pid + 1)
    rest = stop + tl.cdiv(m, BN) - m // BN
    held = rows_of(x, at, 0, D, BK, WIDEN)
    p_largest = tl.load(stats + at)
    n_largest = tl.load(stats + 2 * n + at)
    n_total = tl.load(stats + 3 * n + at)
    negatives = tl.log2(tl.where(n_total > 0.0, n_total, 1.0))
    extra = tl.zeros([BM], tl.float32)
    pull = tl.zeros([BM], tl.float32)
    for j in range(start, rest):
        ref_at, real = band_columns(j, stop, m, BN)
        d = _tile(
            *(x, r, held, x, at, ref_at, square, ref_squares, times, m),
            *(DISTANCE, SCALED, False, D, BM, BN, BK, WIDEN),
        )
        positive, _ = pairs(cls, ref_classes, position, ref_positions, ref_at, real, DIAGONAL)
        logit = P(d, p0, p1)
        if EXTRA == "mean":
            extra += tl.sum(tl.where(positive, logit - p_largest[:, None], 0.0), 1)
        else:
            gap = (n_largest[:, None] - logit) + negatives[:, None]
            gap = tl.where(positive, gap, 0.0)
            e = tl.exp2(-tl.abs(gap))
            softplus = tl.maximum(gap, 0.0) * 0.6931471805599453 + log_of_one_and(e)
            sigmoid = tl.where(gap > 0.0, 1.0, e) / (1.0 + e)
            extra += tl.sum(tl.where(positive, softplus, 0.0), 1)
            pull += tl.sum(tl.where(positive, sigmoid, 0.0), 1)
    tl.store(out + row, extra, mask=row < n)
    tl.store(out + n + row, pull, mask=row < n)
