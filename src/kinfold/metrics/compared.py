"""Queries and gallery as retrieval compares them, and the distances between them."""

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from kinfold import distances
from kinfold.core.checks import Tensor
from kinfold.core.squares import NEAR
from kinfold.metrics.copies import Copies
from kinfold.metrics.rows import (
    ELEMENTS,
    as_float32,
    centre_of,
    checked,
    half_squares,
    unit_rows,
)
from kinfold.metrics.task import to_numpy


class Gallery:
    """Items to search in, made ready once for many searches.

    Args:
        gallery: floating [m, d], as an array or a tensor of the backend.
        distance: a name that `kinfold.distances.get` knows, or a `Distance`.
        queries: floating [n, d]; both show whether rows lie far from the origin.
    """

    def __init__(self, gallery: Tensor, distance: Any, queries: np.ndarray | None = None) -> None:
        kind = distances.get(distance)
        r = checked(gallery, "gallery")
        x = r if queries is None else queries
        _check_sizes(x, r.shape)
        cosine = type(kind).pairwise is distances.Cosine.pairwise
        self.unit = kind.needs_unit_rows
        self.centre = centre_of(x, r, self.unit) if cosine or kind.of_differences else None
        self.zeros: np.ndarray | None = None  # which rows are zero, where `kind` is _Chords
        if cosine and self.centre is not None:
            kind, self.zeros = _CHORDS, ~np.any(r, axis=1)
        self.kind = kind
        self.rows = self.ready(r)  # float32 [m, d]

    def ready(self, rows: np.ndarray) -> np.ndarray:
        """Rows as they are compared: float32, at unit norm or from a centre where that is due."""
        return as_float32(rows, self.unit, self.centre)

    def take(self, which: np.ndarray) -> "Gallery":
        """The items of these rows alone."""
        taken = copy.copy(self)
        for name in ("copies", "half_squares"):
            taken.__dict__.pop(name, None)
        taken.rows = self.rows[which]
        taken.zeros = None if self.zeros is None else self.zeros[which]
        return taken

    def extended(self, more: np.ndarray) -> "Gallery":
        """These items and more, float32 [n, d], whose centre is taken to be the same."""
        more = checked(more, "gallery")
        taken = self.take(np.arange(0))
        taken.rows = np.concatenate([self.rows, self.ready(more)])
        if self.zeros is not None:
            taken.zeros = np.concatenate([self.zeros, ~np.any(more, axis=1)])
        return taken

    @functools.cached_property
    def copies(self) -> Copies:
        """Which rows are equal."""
        return Copies.of(self.rows)

    @functools.cached_property
    def half_squares(self) -> np.ndarray:
        """Half the squared norms of the different rows, float32 [u]."""
        return half_squares(self.copies.different)


class Comparison(NamedTuple):
    """Queries and gallery, ready for their distances; one and the same array without a gallery."""

    x: np.ndarray  # float32 [n, d]
    gallery: Gallery
    zeros: tuple[np.ndarray, np.ndarray] | None  # which rows are zero, where `kind` is _Chords

    @classmethod
    def of(cls, query: Tensor, gallery: Tensor | Gallery | None, distance: Any) -> "Comparison":
        x = checked(query, "query")
        if gallery is None:
            ready = Gallery(x, distance)
            single = ready.rows
        else:
            ready = gallery if isinstance(gallery, Gallery) else Gallery(gallery, distance, x)
            _check_sizes(x, ready.rows.shape)
            single = ready.ready(x)
        zeros = None if ready.zeros is None else (~np.any(x, axis=1), ready.zeros)
        return cls(single, ready, zeros)

    @property
    def r(self) -> np.ndarray:
        return self.gallery.rows

    @property
    def kind(self) -> distances.Distance:
        return self.gallery.kind

    @property
    def own_gallery(self) -> bool:
        return self.r is self.x

    @property
    def of_products(self) -> bool:
        """Whether a block takes one matrix product, and so no more memory than its numbers."""
        return type(self.kind).pairwise in _OF_PRODUCTS

    @property
    def of_scores(self) -> bool:
        """Whether a product alone, or with both squares, tells the distance."""
        products = distances.Cosine.pairwise, distances.InnerProduct.pairwise
        return self.of_half_squares or type(self.kind).pairwise in products

    @property
    def of_half_squares(self) -> bool:
        """Whether the distance is known from half the square of ||x - r||."""
        return type(self.kind) in _OF_SQUARES

    def distances_of(self, anchors: Tensor, references: Tensor) -> np.ndarray:
        """[rows, columns] of tensors. Under cosine, those near 0 are half the square of a chord."""
        if self.of_half_squares:
            return self._of_squares(anchors, references)
        block = to_numpy(self.kind(anchors, references))
        if type(self.kind).pairwise is not distances.Cosine.pairwise:
            return block
        near = block < NEAR["float32"]  # which are rounded by a thousandth or more
        if np.count_nonzero(near) > block.size // _FEW:
            return np.where(near, to_numpy(_CHORDS(anchors, references)), block)
        return recomputed(block, np.nonzero(near), to_numpy(anchors), to_numpy(references))

    def _of_squares(self, anchors: Tensor, references: Tensor) -> np.ndarray:
        """As the distance itself, but that a few near pairs do not make the block a slow one."""
        # Not of a transpose, which JAX makes a copy of.
        dot = to_numpy(ops.einsum("id,jd->ij", anchors, references))
        x, r = to_numpy(anchors), to_numpy(references)
        with np.errstate(over="ignore", invalid="ignore"):  # found by who asked for them
            ours, theirs = (2 * half_squares(rows) for rows in (x, r))
            squares = ours[:, None] + theirs
            near = NEAR["float32"] * squares
            squares -= 2 * dot
            near = squares < near
        if np.count_nonzero(near) > near.size // _FEW:
            return to_numpy(self.kind(anchors, references))
        halves = recomputed(0.5 * squares, np.nonzero(near), x, r)
        return of_half_squares(self.kind, halves)


def paired(kind: distances.Distance, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    """The distance of row i of `x` [n, d] to row i of `r` [n, d], float32 [n]; smaller is closer.

    Those of differences are computed from these, so that near pairs keep their digits.
    """
    out = np.empty(len(x), np.float32)
    pairwise = type(kind).pairwise
    step = max(1, ELEMENTS // x.shape[1])
    for start in range(0, len(x), step):
        ours, theirs = x[start : start + step], r[start : start + step]
        if pairwise is distances.Cosine.pairwise:
            apart = unit_rows(ours) - unit_rows(theirs)
            found = 0.5 * np.einsum("id,id->i", apart, apart)
            zero = ~(ours.any(axis=1) & theirs.any(axis=1))  # a zero row is at 1 from all
            found = np.where(zero, 1.0, found)
        elif pairwise in (distances.Euclidean.pairwise, distances.SquaredEuclidean.pairwise):
            apart = ours.astype(np.float64) - theirs
            found = np.einsum("id,id->i", apart, apart)
            found = np.sqrt(found) if pairwise is distances.Euclidean.pairwise else found
        else:
            tensors = ops.convert_to_tensor(ours), ops.convert_to_tensor(theirs)
            found = to_numpy(kind.paired(*tensors))
            found = -found if kind.similarity else found
        out[start : start + step] = found
    return out


def recomputed(
    block: np.ndarray, near: Any, x: np.ndarray, r: np.ndarray, columns: np.ndarray | None = None
) -> np.ndarray:
    """`block`, its `near` pairs in half the squares of their differences.

    Its columns are the rows of `r`, or those that `columns` [rows, columns] names.
    """
    if not len(near[0]):
        return block
    block, step = block.copy(), max(1, ELEMENTS // x.shape[1])
    for start in range(0, len(near[0]), step):
        i, j = (side[start : start + step] for side in near)
        apart = x[i] - r[j if columns is None else columns[i, j]]
        block[i, j] = 0.5 * np.einsum("id,id->i", apart, apart)
    return block


def of_half_squares(kind: distances.Distance, halves: np.ndarray) -> np.ndarray:
    """The distances of which these are half the square of ||x - r||."""
    return _OF_SQUARES[type(kind)](halves)


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

# More pairs than one in so many are computed again as a whole block.
_FEW = 64


def _check_sizes(x: np.ndarray, shape: tuple[int, ...]) -> None:
    if x.shape[1] != shape[1]:
        raise ValueError(
            "`query` and `gallery` must have the same embedding size. "
            f"Received shapes {x.shape} and {shape}."
        )
