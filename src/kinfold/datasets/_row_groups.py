"""Rows of Parquet files, of which only the row groups that hold them are read."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinfold.datasets._arrow import opened
from kinfold.datasets._names import shown

KEPT = 256 << 20  # bytes of row groups that are kept, where no one says otherwise


class RowGroups:
    """The row groups of files in one order, kept as they were read last.

    Args:
        files: Parquet files.
        counts: of each file the rows of each of its row groups.
        decode: gives what is kept of a row group: called with an open `ParquetFile`, the number of
            the group in it, its first row in it and the file's path. What it gives has `nbytes`.
        bound: bytes to keep; the row group that was read last is kept in any case.
    """

    def __init__(
        self,
        files: Sequence[Path],
        counts: Sequence[Sequence[int]],
        decode: Callable[[Any, int, int, Path], Any],
        bound: int = KEPT,
    ) -> None:
        self.files, self.decode = list(files), decode
        self.counts = [list(of_file) for of_file in counts]
        self.bound = bound
        self.starts = np.cumsum([0, *(n for of_file in counts for n in of_file)])
        self.firsts = np.cumsum([0, *map(len, counts)])  # the number of each file's first group
        self._kept: _Kept | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept": None}

    def __len__(self) -> int:
        return int(self.starts[-1])

    def place(self, row: int) -> tuple[Path, int]:
        """The file that holds a row, and the row in it."""
        file = int(np.searchsorted(self.starts[self.firsts], row, side="right")) - 1
        return self.files[file], row - int(self.starts[self.firsts[file]])

    def within(self, rows: np.ndarray) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """Each row group that holds some of these rows, which of `rows` those are, and their
        places in it.
        """
        groups = np.searchsorted(self.starts, rows, side="right") - 1
        for group in np.unique(groups).tolist():
            at = np.flatnonzero(groups == group)
            yield self.get(group), at, rows[at] - self.starts[group]

    def get(self, group: int) -> Any:
        """What `decode` gives for a row group, read if it is not kept."""
        kept = self._kept
        if kept is None or kept.process != os.getpid():  # threads of another process hold the lock
            kept = self._kept = _Kept()
        with kept.lock:  # pyarrow decodes one row group in several threads
            if group in kept.groups:
                kept.groups.move_to_end(group)
                return kept.groups[group]
            found = self._read(group)
            kept.groups[group] = found
            kept.size += found.nbytes
            while kept.size > self.bound and len(kept.groups) > 1:
                kept.size -= kept.groups.popitem(last=False)[1].nbytes
            return found

    def _read(self, group: int) -> Any:
        file = int(np.searchsorted(self.firsts, group, side="right")) - 1
        path, inner = self.files[file], group - int(self.firsts[file])
        with opened(path) as parquet:
            if row_counts(parquet) != self.counts[file]:
                raise ValueError(f"{shown(path)} was changed since it was opened.")
            first = int(self.starts[group] - self.starts[self.firsts[file]])
            return self.decode(parquet, inner, first, path)


class _Kept:
    def __init__(self) -> None:
        self.process = os.getpid()
        self.lock = threading.Lock()
        self.groups: OrderedDict[int, Any] = OrderedDict()
        self.size = 0


def row_counts(parquet: Any) -> list[int]:
    """The rows of each row group of an open file."""
    metadata = parquet.metadata
    return [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
