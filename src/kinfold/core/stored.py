"""Examples that stay where they are, and are read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from kinfold.core.installed_memory import check_fits


class Reader(Protocol):
    """What reads examples by number; it pickles, and may be called from several threads.

    Attributes:
        shape: of one example.
        dtype: of the examples as they are read.
        unreadable: by number, why an example could not be read; not to be changed. In its place
            another example of its class is given, always the same one.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def unreadable(self) -> dict[int, str]: ...

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Read the examples of these numbers, [len(rows), *shape]."""
        ...

    def keep_apart(self, parts: np.ndarray) -> None:
        """Let no example stand in for one of another part; int [n], the part of each."""
        ...

    def leave_out(self, unreadable: dict[int, str]) -> None:
        """Take these examples for unreadable, without a try."""
        ...


class Stored:
    """Examples on a disk, in the place of an array.

    Indexing reads: `x[5]`, `x[10:20]`, `x[rows]` and `x[mask]` give NumPy arrays. `len(x)`,
    `x.shape`, `x.ndim` and `x.dtype` read nothing, and `numpy.asarray(x)` reads all. It pickles.

    Args:
        reader: what reads them.
        rows: int64 [n], which examples of the reader these are; None for all.

    Example:

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from kinfold.datasets import parts
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "vectors.npz")
    ...     np.savez(file, x=np.eye(3, dtype="float32"), y=[0, 1, 0])
    ...     x, y = parts(file, as_needed=True)["all"]
    ...     x.shape, x[[2, 0]].tolist()
    ((3, 3), [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    """

    def __init__(self, reader: Reader, rows: np.ndarray | None = None) -> None:
        self.reader = reader
        self.rows = np.arange(len(reader)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.reader.shape)

    @property
    def ndim(self) -> int:
        return 1 + len(self.reader.shape)

    @property
    def dtype(self) -> np.dtype:
        return self.reader.dtype

    @property
    def unreadable(self) -> dict[int, str]:
        """By number, the examples of these that could not be read so far, and why."""
        found = self.reader.unreadable
        if not found:
            return {}
        at = np.flatnonzero(np.isin(self.rows, list(found)))
        return {int(k): found[int(self.rows[k])] for k in at}

    def take(self, rows: Any) -> Stored:
        """The examples of these rows, none of which is read."""
        return Stored(self.reader, self.rows[rows])

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, tuple):
            raise TypeError(
                "Stored examples are indexed along the first axis alone: read some, such as "
                f"x[:100], and index what you get. Received the index {index!r}."
            )
        rows = self.rows[index]
        if np.ndim(rows) == 0:
            return self.reader.read(np.array([rows]))[0]
        return self.reader.read(rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        needed = int(np.prod(self.shape)) * self.dtype.itemsize
        check_fits(needed, f"These {len(self):,} stored examples need", "Read some at a time.")
        found = self.reader.read(self.rows)
        return found if dtype is None else found.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"Stored(shape={self.shape}, dtype={self.dtype})"


def blocks(x: Any, size: int) -> Iterator[np.ndarray]:
    """The examples in turn, so many at a time; the next are read while one block is in use."""
    starts = range(0, len(x), size)
    if not isinstance(x, Stored):
        yield from (x[start : start + size] for start in starts)
        return
    with ThreadPoolExecutor(1) as pool:
        ahead: Future[np.ndarray] | None = None
        for start in starts:
            block = x[start : start + size] if ahead is None else ahead.result()
            following = slice(start + size, start + 2 * size)
            ahead = pool.submit(x.__getitem__, following) if start + size < len(x) else None
            yield block


def some(x: Any, most: int = 256) -> np.ndarray:
    """At most so many examples, evenly from the first to the last."""
    return x[np.linspace(0, len(x) - 1, min(len(x), most)).round().astype(int)]


def take(x: Any, rows: np.ndarray | slice) -> Any:
    """The examples of these rows; of stored ones nothing is read."""
    if isinstance(x, Stored):
        return x.take(rows)
    if isinstance(rows, slice):
        return x[rows]
    together = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
    return x[rows[0] : rows[-1] + 1] if together else x[rows]  # no copy where it can be
