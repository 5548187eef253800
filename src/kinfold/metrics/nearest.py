"""The nearest items of each query by tiles of products; a set searched in itself takes half."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from kinfold.core.squares import NEAR
from kinfold.metrics import on_device, product
from kinfold.metrics.compared import Comparison, of_half_squares, recomputed
from kinfold.metrics.rows import half_squares
from kinfold.metrics.shortlists import Shortlists, TooManyTiesError

# Rows and columns of a tile (16 MiB, or 32 for a gallery).
_ROWS, _COLUMNS = 2048, 8192
# Fewer pairs than this, or more items of each query, are ranked whole.
SMALL, MOST = 1 << 18, 128


class Nearest(NamedTuple):
    """The nearest items of each query, in no order, with all that are as far as the last."""

    distances: np.ndarray  # float32 [n, w], smaller is closer; infinite where there is no item
    items: np.ndarray  # int64 [n, w], rows of the gallery


def nearest(compared: Comparison, k: int) -> Nearest | None:
    """At least the k nearest items of each query; None where whole rows must be ranked instead."""
    x, r = compared.x, compared.r
    available = len(r) - compared.own_gallery
    if not (1 <= k <= min(available, MOST) and len(x) * len(r) >= SMALL):
        return None
    if not compared.of_scores or compared.zeros is not None or _overflows(compared):
        return None
    copies = compared.gallery.copies
    if copies.most > MOST:
        return None
    ours = copies.different if compared.own_gallery else x
    try:
        scores, items = _scored(compared, ours, copies.different, k)
    except TooManyTiesError:
        return None
    found = Nearest(_distances(compared, ours, copies.different, scores, items), items)
    return found if copies.most == 1 else _with_copies(compared, found)


def _overflows(compared: Comparison) -> bool:
    """Whether a product might not be finite, which the ranking of whole rows finds and names."""
    largest = [max(float(rows.max()), -float(rows.min())) for rows in (compared.x, compared.r)]
    return max(largest) ** 2 * compared.x.shape[1] > 1e37


def _scored(
    compared: Comparison, x: np.ndarray, r: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and items [n, w] of the best: products, less half of both squares for differences."""
    own, squares = compared.own_gallery, compared.of_half_squares
    keep = np.full(len(x), np.inf, np.float32)
    if not compared.kind.similarity:  # those that are near are all kept: rounding orders them
        keep[:] = 1 - NEAR["float32"]
    ours = half_squares(x) if squares else None
    theirs = compared.gallery.half_squares if squares else None
    if ours is not None and theirs is not None:
        keep = -NEAR["float32"] * (ours + theirs.max())
    if ours is not None and not own:  # the same for all items, so that they need not be told of it
        keep = keep + ours
    if product.on_device():
        # A row's own half is taken from its scores below, also where the rows are the items.
        kept = keep + ours if own and ours is not None else keep
        scores, items = on_device.best(x, r, min(k, len(r) - own), kept, theirs, own)
        return scores if ours is None else scores - ours[:, None], items
    lists = Shortlists(len(x), min(k, len(r) - own), keep)
    if own:
        _own_tiles(lists, x, ours)
    else:
        _tiles(lists, x, r, theirs)
    lists.tighten()
    width = int(lists.counts.max())
    scores = lists.scores[:, :width]
    return scores if own or ours is None else scores - ours[:, None], lists.items[:, :width]


def _own_tiles(lists: Shortlists, x: np.ndarray, halves: np.ndarray | None) -> None:
    """Each tile of the upper half serves its rows and its columns."""
    left = right = x
    if halves is not None:
        one = np.ones(len(x), np.float32)
        left, right = np.column_stack([x, one, -halves]), np.column_stack([x, -halves, one])
    starts = range(0, len(x), _ROWS)
    ours, theirs = ([product.given(rows[s : s + _ROWS]) for s in starts] for rows in (left, right))

    def serve(tile: np.ndarray, i: int, j: int) -> None:
        if i == j:
            np.fill_diagonal(tile, -np.inf)
        lists.offer(tile, starts[i], starts[j])
        if i != j:
            lists.offer_transposed(tile, starts[j], starts[i])

    products = product.InTurn()
    with _Beside() as beside:
        for apart in range(len(starts)):  # by diagonals: the thresholds of all rows rise alike
            for i in range(len(starts) - apart):
                beside(serve, products.of(ours[i], theirs[i + apart]), i, i + apart)


def _tiles(lists: Shortlists, x: np.ndarray, r: np.ndarray, halves: np.ndarray | None) -> None:
    ours = [product.given(x[start : start + _ROWS]) for start in range(0, len(x), _ROWS)]

    def serve(tile: np.ndarray, row: int, item: int) -> None:
        if halves is not None:
            tile -= halves[item : item + _COLUMNS, None]
        lists.offer_transposed(tile, row, item)

    products = product.InTurn()
    with _Beside() as beside:
        for item in range(0, len(r), _COLUMNS):
            theirs = product.given(r[item : item + _COLUMNS])
            for i, rows in enumerate(ours):
                # The longer side first: the other way a product takes a third longer.
                beside(serve, products.of(theirs, rows), i * _ROWS, item)


class _Beside:
    """Calls functions in their order in a thread of their own, one behind at most.

    Products and the choice among them go on at the same time: NumPy lets go of Python's lock.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.waiting: deque[Future[None]] = deque()

    def __call__(self, function: Callable[..., None], *given: Any) -> None:
        self.waiting.append(self.pool.submit(function, *given))
        if len(self.waiting) > 1:
            self.waiting.popleft().result()

    def __enter__(self) -> "_Beside":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            while self.waiting and kind is None:
                self.waiting.popleft().result()
        finally:
            self.pool.shutdown(cancel_futures=True)


def _distances(
    compared: Comparison, x: np.ndarray, r: np.ndarray, scores: np.ndarray, items: np.ndarray
) -> np.ndarray:
    """What the scores are as distances; pairs that are near get theirs from their differences."""
    if compared.kind.similarity:
        return -scores
    there = scores > -np.inf
    if not compared.of_half_squares:
        block = np.where(there, np.maximum(1 - scores, 0), np.inf)
        return recomputed(block, np.nonzero(block < NEAR["float32"]), x, r, items)
    halves = np.where(there, np.maximum(-scores, 0), np.inf)
    ours, theirs = half_squares(x), compared.gallery.half_squares
    near = halves < NEAR["float32"] * (ours[:, None] + theirs[items])
    return of_half_squares(compared.kind, recomputed(halves, np.nonzero(near), x, r, items))


def _with_copies(compared: Comparison, found: Nearest) -> Nearest:
    """Put in the place of each item all that equal it; a query's own copies are at its distance."""
    values, items = found
    copies = compared.gallery.copies
    if not compared.own_gallery:
        return Nearest(*copies.spread(values, items))
    own = np.zeros((len(items), 1), np.float32)
    if compared.kind.similarity:
        own[:, 0] = -2 * half_squares(copies.different)
    elif not compared.of_half_squares:
        own[~copies.different.any(axis=1)] = 1  # under cosine a zero row is at 1 from all
    # Copies beyond the end of a shortlist are left out: what lies between is not in it.
    there = np.isfinite(values)
    last = np.where(there, values, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    whole = np.count_nonzero(there, axis=1, keepdims=True) >= len(items) - 1
    own = np.where(whole | (own <= last), own, np.inf).astype(np.float32)
    values = np.concatenate([own, values], axis=1)
    items = np.concatenate([np.arange(len(items))[:, None], items], axis=1)
    values, items = (part[copies.which] for part in copies.spread(values, items))
    return Nearest(np.where(items == np.arange(len(items))[:, None], np.inf, values), items)
