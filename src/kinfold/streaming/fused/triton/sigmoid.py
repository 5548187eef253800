"""The sigmoid loss of pairs in Triton: a tile's losses and derivatives in one pass.

A sum of softplus terms has no sums to wait for, as the losses of `forward` have.
"""

import triton
import triton.language as tl

from kinfold.streaming.fused.triton.forward import log_of_one_and
from kinfold.streaming.fused.triton.gradient import block_products


@triton.jit
def _softplus(logit):
    """And its slope."""
    e = tl.exp2(-1.4426950408889634 * tl.abs(logit))
    value = tl.maximum(logit, 0.0) + log_of_one_and(e)
    return value, tl.where(logit > 0.0, 1.0, e) / (1.0 + e)


@triton.jit(do_not_specialize=["n", "m", "ahead"])
def sigmoids(
    x,  # [n, D]
    r,  # [m, D]
    weights,  # float32 [n], of the losses
    numbers,  # float32 [2], scale and bias of the logits
    out,  # [n, m] of whole tiles: the derivatives, in the dtype of x; the products, where GIVEN
    losses,  # float32 [tiles of columns, n]
    pulls,  # float32 [tiles of columns, n], sums of the derivatives
    n, m, stride,
    ahead,  # by how many columns a row's partner lies ahead of the row
    GIVEN: tl.constexpr, GRADIENT: tl.constexpr,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """Losses of a tile, and the derivatives with respect to its logits."""
    first = tl.program_id(0) * BM
    ref_first = tl.program_id(1) * BN
    row = first + tl.arange(0, BM)
    column = ref_first + tl.arange(0, BN)
    at = tl.minimum(row, n - 1)
    ref_at = tl.minimum(column, m - 1)
    place = out + row[:, None] * stride + column[None, :]
    dot = block_products(x, r, at, ref_at, place, GIVEN, D, BM, BN, BK, WIDEN)
    logit = dot * tl.load(numbers) + tl.load(numbers + 1)
    partners = (first + ahead < ref_first + BN) & (ref_first < first + ahead + BM)
    weight = tl.load(weights + at)[:, None]
    if partners:
        own = (row + ahead)[:, None] == column[None, :]
        loss, g = _softplus(tl.where(own, -logit, logit))
        g = tl.where(own, -g, g) * weight
    else:
        loss, g = _softplus(logit)
        g = g * weight
    if GRADIENT:
        tl.store(place, g.to(out.dtype.element_ty))
    if ref_first + BN > m:
        loss = tl.where((column < m)[None, :], loss, 0.0)
        g = tl.where((column < m)[None, :], g, 0.0)
    tl.store(losses + tl.program_id(1) * n + row, tl.sum(loss, 1), mask=row < n)
    if GRADIENT:
        tl.store(pulls + tl.program_id(1) * n + row, tl.sum(g, 1), mask=row < n)
