"""Rows that are equal, found once: a matrix product may round equal columns differently."""

from typing import NamedTuple

import numpy as np

# Numbers that are copied at once.
_ELEMENTS = 1 << 20


class Copies(NamedTuple):
    """The different rows of an array, and which of them each row equals."""

    different: np.ndarray  # [u, d]; the array itself where no rows are equal
    which: np.ndarray  # int64 [m], a row of `different` for each

    @classmethod
    def of(cls, rows: np.ndarray) -> "Copies":
        """Compare float32 rows [m, d]; 0.0 and -0.0 are equal."""
        sums = _checksums(rows)
        _, first, which = np.unique(sums, return_index=True, return_inverse=True)
        if len(first) == len(rows):
            return cls(rows, np.arange(len(rows)))
        again = np.setdiff1d(np.arange(len(rows)), first)
        if not np.array_equal(rows[again], rows[first[which[again]]]):  # equal sums by chance
            whole = (rows + 0.0).view(np.dtype((np.void, rows.shape[1] * rows.itemsize)))[:, 0]
            _, first, which = np.unique(whole, return_index=True, return_inverse=True)
        order = np.argsort(first)  # in the order of the rows
        return cls(rows[first[order]], np.argsort(order)[which])

    @property
    def most(self) -> int:
        """How many rows are equal at most."""
        return 1 if len(self.different) == len(self.which) else int(self._counts.max())

    @property
    def _counts(self) -> np.ndarray:
        return np.bincount(self.which)

    def spread(self, values: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give values [n, w] of different rows to all rows that equal them, infinity elsewhere."""
        counts = self._counts
        members, begin = np.argsort(self.which, kind="stable"), np.cumsum(counts) - counts
        there = np.isfinite(values)
        row, item, value = np.nonzero(there)[0], items[there], values[there]
        sizes = counts[item]
        row, value = np.repeat(row, sizes), np.repeat(value, sizes)
        within = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        item = members[np.repeat(begin[item], sizes) + within]
        widths = np.bincount(row, minlength=len(values))
        place = np.arange(len(row)) - (np.cumsum(widths) - widths)[row]
        shape = len(values), int(widths.max(initial=0))
        spread, of = np.full(shape, np.inf, np.float32), np.zeros(shape, np.int64)
        spread[row, place], of[row, place] = value, item
        return spread, of


def _checksums(rows: np.ndarray) -> np.ndarray:
    """A number for each row, uint64 [m]: equal for equal rows, and hardly for others."""
    factors = np.random.default_rng(0).integers(1 << 62, size=rows.shape[1], dtype=np.uint64)
    factors = 2 * factors + np.uint64(1)
    sums = np.empty(len(rows), np.uint64)
    step = max(1, _ELEMENTS // rows.shape[1])
    for start in range(0, len(rows), step):
        bits = (rows[start : start + step] + np.float32(0)).view(np.uint32)
        sums[start : start + step] = bits.astype(np.uint64) @ factors
    return sums
