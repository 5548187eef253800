"""Examples that stay where they are, and are read when they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from kinfold.datasets._memory import check_fits


class Reader(Protocol):
    """What reads examples by number; it pickles, and may be called from several threads.

    Attributes:
        shape: of one example.
        dtype: of the examples as they are read.
        unreadable: by number, why an example could not be read. In its place another example of its
            class is given, always the same one.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    unreadable: dict[int, str]

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Read the examples of these numbers, [len(rows), *shape]."""
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


def take(x: Any, rows: np.ndarray) -> Any:
    """The examples of these rows; of stored ones nothing is read."""
    if isinstance(x, Stored):
        return x.take(rows)
    together = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
    return x[rows[0] : rows[-1] + 1] if together else x[rows]  # no copy where it can be


class Joined:
    """Several readers of examples of one shape and type, one after the other."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.readers = list(readers)
        self.shape, self.dtype = readers[0].shape, readers[0].dtype
        self.starts = np.cumsum([0, *(len(reader) for reader in readers)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def unreadable(self) -> dict[int, str]:
        return {
            int(start) + row: why
            for start, reader in zip(self.starts[:-1], self.readers, strict=True)
            for row, why in reader.unreadable.items()
        }

    def read(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape), self.dtype)
        of = np.searchsorted(self.starts, rows, side="right") - 1
        for k in np.unique(of):
            mine = np.flatnonzero(of == k)
            out[mine] = self.readers[k].read(rows[mine] - self.starts[k])
        return out


class Cached:
    """A reader that keeps what it has read, until it holds so many bytes.

    What has come first stays: in batches that go through all examples again and again, every
    example is as likely to be asked for next.
    """

    def __init__(self, reader: Reader, bound: int) -> None:
        self.reader = reader
        self.shape, self.dtype = reader.shape, reader.dtype
        each = max(1, int(np.prod(reader.shape)) * reader.dtype.itemsize)
        self.room = min(len(reader), bound // each)
        self._begin()

    def _begin(self) -> None:
        self._kept = np.empty((self.room, *self.shape), self.dtype)  # pages come as they are filled
        self._place = np.full(len(self.reader), -1)
        self._count = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def unreadable(self) -> dict[int, str]:
        return self.reader.unreadable

    def read(self, rows: np.ndarray) -> np.ndarray:
        place = self._place[rows]
        new = np.flatnonzero(place < 0)
        if len(new) == len(rows):
            out = self.reader.read(rows)
        else:
            out = self._kept[place]
            if len(new):
                out[new] = self.reader.read(rows[new])
        if len(new):
            self._keep(rows[new], out[new])
        return out

    def _keep(self, rows: np.ndarray, examples: np.ndarray) -> None:
        with self._lock:
            for row, example in zip(rows.tolist(), examples, strict=True):
                if self._count == self.room:
                    return
                if self._place[row] < 0:
                    self._kept[self._count] = example
                    self._place[row] = self._count  # last: another thread may be reading
                    self._count += 1
