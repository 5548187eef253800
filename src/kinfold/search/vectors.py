"""The vectors of an index, in memory or on a disk, in the order of its items."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_ROWS = 65536  # taken at once


class Vectors:
    """float32 rows [n, d], of arrays that may be memory-mapped.

    Attributes:
        dimension: d; None until the first rows come.
    """

    def __init__(self) -> None:
        self.dimension: int | None = None
        self._parts: list[np.ndarray] = []
        self._begins = np.zeros(1, np.int64)  # of each part among all rows that were ever added
        self._at = np.empty(0, np.int64)  # where each row is among these

    def __len__(self) -> int:
        return len(self._at)

    def append(self, rows: np.ndarray) -> None:
        """Add rows behind those that are there."""
        begin = self._begins[-1]
        self._parts.append(rows)
        self._begins = np.append(self._begins, begin + len(rows))
        self._at = np.concatenate([self._at, np.arange(begin, begin + len(rows))])
        self.dimension = rows.shape[1]

    def keep(self, rows: np.ndarray) -> None:
        """Drop all but these rows."""
        self._at = self._at[rows]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """float32 [len(rows), d], copied into memory."""
        at = self._at[rows]
        out = np.empty((len(at), self.dimension or 0), np.float32)
        part_of = np.searchsorted(self._begins, at, side="right") - 1
        for k in np.unique(part_of).tolist():
            mine = part_of == k
            out[mine] = self._parts[k][at[mine] - self._begins[k]]
        return out

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The rows in turn, so many at a time, each with the number of its first."""
        for start in range(0, len(self), _ROWS):
            yield start, self.take(np.arange(start, min(start + _ROWS, len(self))))

    def move_to(self, stored: np.ndarray) -> None:
        """Read from here on from an array that holds the same rows."""
        self._parts, self._at = [stored], np.arange(len(stored))
        self._begins = np.array([0, len(stored)])
