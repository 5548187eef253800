"""Examples that stay where they are, and are read when they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from kinfold.datasets._memory import check_fits


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


class InMemory:
    """Examples that are in memory, for where they cannot be read as they are needed."""

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.shape, self.dtype = x, x.shape[1:], x.dtype
        self.unreadable: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.x)

    def keep_apart(self, parts: np.ndarray) -> None:
        """Nothing stands in for anything."""

    def leave_out(self, unreadable: dict[int, str]) -> None:
        """All are readable."""

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.x[rows]


class Changed:
    """A reader whose examples go through a function, such as one that scales them."""

    def __init__(self, reader: Reader, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self.reader, self.change, self.shape = reader, change, reader.shape
        self.dtype = change(np.zeros((1, *reader.shape), reader.dtype)).dtype

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def unreadable(self) -> dict[int, str]:
        return self.reader.unreadable

    def keep_apart(self, parts: np.ndarray) -> None:
        self.reader.keep_apart(parts)

    def leave_out(self, unreadable: dict[int, str]) -> None:
        self.reader.leave_out(unreadable)

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.change(self.reader.read(rows))


def change(x: Any, function: Callable[[np.ndarray], np.ndarray]) -> Any:
    """What a function makes of examples [n, ...], row by row; stored ones are not read for it."""
    return Stored(Changed(x.reader, function), x.rows) if isinstance(x, Stored) else function(x)


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


def take(x: Any, rows: np.ndarray) -> Any:
    """The examples of these rows; of stored ones nothing is read."""
    if isinstance(x, Stored):
        return x.take(rows)
    together = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
    return x[rows[0] : rows[-1] + 1] if together else x[rows]  # no copy where it can be


def take_slice(x: Any, rows: slice) -> Any:
    """The examples of a slice; of stored ones nothing is read."""
    return x.take(rows) if isinstance(x, Stored) else x[rows]


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

    def keep_apart(self, parts: np.ndarray) -> None:
        for start, reader in zip(self.starts[:-1], self.readers, strict=True):
            reader.keep_apart(parts[start : start + len(reader)])

    def leave_out(self, unreadable: dict[int, str]) -> None:
        for start, reader in zip(self.starts[:-1], self.readers, strict=True):
            own = range(int(start), int(start) + len(reader))
            found = {row - own.start: why for row, why in unreadable.items() if row in own}
            reader.leave_out(found)

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

    def keep_apart(self, parts: np.ndarray) -> None:
        self.reader.keep_apart(parts)

    def leave_out(self, unreadable: dict[int, str]) -> None:
        self.reader.leave_out(unreadable)

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
