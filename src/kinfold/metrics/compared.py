"""Queries and gallery as retrieval compares them: checked, in float32, where it rounds little."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from kinfold import distances
from kinfold.core.checks import Tensor
from kinfold.core.squares import NEAR
from kinfold.metrics.ranking import to_numpy

# Numbers that are copied at once.
_ELEMENTS = 1 << 20


class Comparison(NamedTuple):
    """Queries and gallery, ready for their distances; one and the same array without a gallery."""

    x: np.ndarray  # float32 [n, d]
    r: np.ndarray  # float32 [m, d]
    kind: distances.Distance
    zeros: tuple[np.ndarray, np.ndarray] | None  # which rows are zero, where `kind` is _Chords

    @classmethod
    def of(cls, query: Tensor, gallery: Tensor | None, distance: Any) -> "Comparison":
        kind = distances.get(distance)
        x = _checked(query, "query")
        r = x if gallery is None else _checked(gallery, "gallery")
        if x.shape[1] != r.shape[1]:
            raise ValueError(
                "`query` and `gallery` must have the same embedding size. "
                f"Received shapes {x.shape} and {r.shape}."
            )
        unit, zeros = kind.needs_unit_rows, None
        cosine = type(kind).pairwise is distances.Cosine.pairwise
        centre = _centre(x, r, unit) if cosine or kind.of_differences else None
        if cosine and centre is not None:
            kind, zeros = _CHORDS, (~np.any(x, axis=1), ~np.any(r, axis=1))
        single = _float32(x, unit, centre)
        return cls(
            single,
            single if gallery is None else _float32(r, unit, centre),
            kind,
            zeros,
        )

    @property
    def own_gallery(self) -> bool:
        return self.r is self.x

    @property
    def of_products(self) -> bool:
        """Whether a block takes one matrix product, and so no more memory than its numbers."""
        return type(self.kind).pairwise in _OF_PRODUCTS

    def distances_of(self, anchors: Tensor, references: Tensor) -> np.ndarray:
        """[rows, columns] of tensors. Under cosine, those near 0 are half the square of a chord."""
        if type(self.kind) in _OF_SQUARES:
            return self._of_squares(anchors, references)
        block = to_numpy(self.kind(anchors, references))
        if type(self.kind).pairwise is not distances.Cosine.pairwise:
            return block
        near = block < _NEAR
        if np.count_nonzero(near) > block.size // _FEW:
            return np.where(near, to_numpy(_CHORDS(anchors, references)), block)
        return _with_chords(block, np.nonzero(near), to_numpy(anchors), to_numpy(references))

    def _of_squares(self, anchors: Tensor, references: Tensor) -> np.ndarray:
        """As the distance itself, but that a few near pairs do not make the block a slow one."""
        dot = to_numpy(ops.matmul(anchors, ops.transpose(references)))
        x, r = to_numpy(anchors), to_numpy(references)
        with np.errstate(over="ignore", invalid="ignore"):  # found by who asked for them
            ours, theirs = (np.einsum("id,id->i", rows, rows) for rows in (x, r))
            squares = ours[:, None] + theirs
            near = NEAR["float32"] * squares
            squares -= 2 * dot
            near = squares < near
        if np.count_nonzero(near) > near.size // _FEW:
            return to_numpy(self.kind(anchors, references))
        squares = _with_chords(0.5 * squares, np.nonzero(near), x, r)
        return _OF_SQUARES[type(self.kind)](squares)


def _with_chords(block: np.ndarray, near: Any, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """`block`, its few `near` pairs computed again from their differences."""
    if not len(near[0]):
        return block
    block, step = block.copy(), max(1, _ELEMENTS // x.shape[1])
    for start in range(0, len(near[0]), step):
        i, j = (side[start : start + step] for side in near)
        apart = x[i] - r[j]
        block[i, j] = 0.5 * np.einsum("id,id->i", apart, apart)
    return block


class _Chords(distances.SquaredEuclidean):
    """1 - x.r of rows of unit norm, as half of ||x - r||^2: so they may be moved together."""

    name = "cosine"

    def pairwise(self, x: Tensor, r: Tensor, known: Tensor | None = None) -> Tensor:
        return 0.5 * super().pairwise(x, r, known)


_CHORDS = _Chords()

# What each of these distances is of half the square of ||x - r||.
_OF_SQUARES: dict[type, Callable[[np.ndarray], np.ndarray]] = {
    _Chords: lambda halves: halves,
    distances.SquaredEuclidean: lambda halves: 2 * halves,
    distances.Euclidean: lambda halves: np.sqrt(2 * halves),
}
_OF_PRODUCTS = [
    kind.pairwise  # of a subclass that changes nothing but its name, too
    for kind in (
        _Chords,
        distances.SquaredEuclidean,
        distances.Euclidean,
        distances.Cosine,
        distances.InnerProduct,
    )
]

# Cosine distances below this one are rounded by a thousandth or more.
_NEAR = 2.0**-13

# More pairs than one in so many are computed again as a whole block.
_FEW = 64


def _checked(value: Any, name: str) -> np.ndarray:
    """Numbers [n, d] that are finite in float32."""
    value = to_numpy(value)
    # bfloat16 is of NumPy's kind "V".
    if value.dtype.kind not in "fiub" and value.dtype.name != "bfloat16":
        raise TypeError(f"`{name}` must hold numbers. Received dtype {value.dtype}.")
    if value.ndim != 2 or 0 in value.shape:
        raise ValueError(
            f"`{name}` must hold one embedding per row, shape [n, d] with neither of them 0. "
            f"Received shape {value.shape}."
        )
    with np.errstate(over="ignore"):
        finite = [np.isfinite(part.astype(np.float32)).all(axis=1) for part in _parts(value)]
    bad = len(value) - sum(map(np.count_nonzero, finite))
    if bad:
        raise ValueError(
            f"`{name}` must be finite in float32. Received NaN or infinity in {bad} of "
            f"{len(value)} rows."
        )
    return value


def _parts(value: np.ndarray) -> Iterator[np.ndarray]:
    """Runs of rows, so that copies of them are small."""
    rows = max(1, _ELEMENTS // value.shape[1])
    return (value[start : start + rows] for start in range(0, len(value), rows))


def _float32(value: np.ndarray, unit: bool, centre: np.ndarray | None) -> np.ndarray:
    """float32 [n, d]: rows of unit norm (or zero) where `unit`, less the centre if there is one."""
    single = np.empty(value.shape, np.float32)
    for part, out in zip(_parts(value), _parts(single), strict=True):
        rows = _unit(part) if unit else part
        out[...] = rows if centre is None else rows - centre
    return single


def _unit(rows: np.ndarray) -> np.ndarray:
    """float64 [n, d], by the largest entry first, as the square of a tiny one may be 0."""
    rows = rows.astype(np.float64)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows /= np.where(largest > 0, largest, 1)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)


def _centre(x: np.ndarray, r: np.ndarray, unit: bool) -> np.ndarray | None:
    """What may be taken off all rows, float64 [d], where they lie far from the origin.

    It is a multiple of a power of 2 near their spread: no float32 row is rounded without it.
    """
    sample = np.concatenate([rows[:: -(-len(rows) // 1024)].astype(np.float64) for rows in (x, r)])
    sample = _unit(sample) if unit else sample
    centre = sample.mean(axis=0)
    spread = np.sqrt(np.mean((sample - centre) ** 2))
    if np.mean(centre**2) <= 4 * spread**2:
        return None
    step = 2.0 ** np.floor(np.log2(spread)) if spread > 0 else 2.0**-149
    return np.rint(centre / step) * step
