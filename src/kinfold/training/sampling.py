"""The part of a large test that the raw input is measured on, and that a report shows."""

import dataclasses
import functools
import math
from dataclasses import dataclass

import numpy as np

from kinfold.core.stored import Stored
from kinfold.datasets import Split
from kinfold.datasets._split import select_rows
from kinfold.training.raw_input import pixels, raw_shape

MOST_VALIDATION = 2_500  # examples that the epochs are compared by
_MOST = 20_000  # examples in a report
_BYTES = 1 << 27  # of raw input as floats
_MOST_HELD = 1 << 28  # bytes of examples that are kept as they are
_GROUPS = 10  # classes that a sample holds at least, where there are as many


@dataclass
class Sample:
    """Some examples of a split, or all of them.

    Attributes:
        rows: int64 [m], which of the split they are, in order.
        split: the examples.
        whole: how many examples the split has.
    """

    rows: np.ndarray
    split: Split
    whole: int

    @functools.cached_property
    def raw(self) -> np.ndarray:
        """float32 [m, p], their raw input at unit norm."""
        return pixels(self.split.x)

    @property
    def is_all(self) -> bool:
        return len(self.rows) == self.whole


def sample_of(split: Split) -> Sample:
    """As many examples as a report shows and the raw input is measured on."""
    rows = drawn_rows(split.y, room(split.x.shape[1:]))
    part = split if len(rows) == len(split) else select_rows(split, rows)
    return Sample(rows, part, len(split))


def room(shape: tuple[int, ...]) -> int:
    """How many examples of a shape a sample holds at most."""
    return max(2 * _GROUPS, min(_MOST, _BYTES // (4 * int(np.prod(raw_shape(shape))))))


def drawn_rows(y: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, in order and always the same: whole classes, drawn at random.

    Of classes so large that not ten would fit, some examples of each are drawn.

    Args:
        y: int [n], the class of each row.
        most: how many rows, 20 or more.

    Example:

    >>> import numpy as np
    >>> from kinfold.training.sampling import drawn_rows
    >>> y = np.repeat(np.arange(50), 4)
    >>> rows = drawn_rows(y, 40)
    >>> len(rows), len(set(y[rows].tolist()))
    (40, 10)
    """
    if len(y) <= most:
        return np.arange(len(y))
    rng = np.random.default_rng(0)
    classes, of, counts = np.unique(y, return_inverse=True, return_counts=True)
    each = max(2, most // min(len(classes), _GROUPS))
    shuffled = rng.permutation(len(y))
    shuffled = shuffled[np.argsort(of[shuffled], kind="stable")]  # by class, in random order
    place = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
    order = rng.permutation(len(classes))
    fits = np.cumsum(np.minimum(counts, each)[order]) <= most
    chosen = np.zeros(len(classes), bool)
    chosen[order[fits]] = True
    return np.sort(shuffled[(place < each) & chosen[of[shuffled]]])


def readable(split: Split, *embeddings: np.ndarray) -> tuple[Split, list[np.ndarray]]:
    """A split and its embeddings without the examples that turned out to be unreadable."""
    if not isinstance(split.x, Stored):
        return split, list(embeddings)
    bad = list(split.x.unreadable)
    if not bad:
        return split, list(embeddings)
    good = np.setdiff1d(np.arange(len(split)), bad)
    return select_rows(split, good), [rows[good] for rows in embeddings]


def read_once(split: Split) -> tuple[Split, np.ndarray]:
    """Read a split that every epoch asks for: its readable examples, in memory where they fit.

    Returns:
        The split, and its raw input at unit norm, float32 [m, p].
    """
    size = len(split) * math.prod(split.x.shape[1:]) * split.x.dtype.itemsize
    held = [np.asarray(split.x)] if size <= _MOST_HELD else []
    raw = pixels(held[0] if held else split.x)  # which reads all, and tells which cannot be read
    split, (raw, *held) = readable(split, raw, *held)
    return dataclasses.replace(split, x=held[0]) if held else split, raw


def rows_of_both(
    queries: np.ndarray, gallery: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the queries and of the gallery, of the same classes, so many together at most.

    Args:
        queries: int [n], the class of each query.
        gallery: int [m], that of each example of the gallery.
        most: how many rows in all, 20 or more.
    """
    rows = drawn_rows(np.concatenate([queries, gallery]), most)
    return rows[rows < len(queries)], rows[rows >= len(queries)] - len(queries)
