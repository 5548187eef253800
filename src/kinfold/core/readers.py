"""Readers made of other readers, or of an array."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kinfold.core.stored import Reader, Stored


class AllReadable:
    """Part of a reader whose examples are all readable, or an error: none stands in for another."""

    @property
    def unreadable(self) -> dict[int, str]:
        return {}

    def keep_apart(self, parts: np.ndarray) -> None:
        """Nothing to do."""

    def leave_out(self, unreadable: dict[int, str]) -> None:
        """Nothing to do."""


class InMemory(AllReadable):
    """Examples that are in memory, for where they cannot be read as they are needed."""

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.shape, self.dtype = x, x.shape[1:], x.dtype

    def __len__(self) -> int:
        return len(self.x)

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.x[rows]


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


class _Around:
    """Part of a reader that goes around another, of the same examples."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.shape, self.dtype = reader, reader.shape, reader.dtype

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def unreadable(self) -> dict[int, str]:
        return self.reader.unreadable

    def keep_apart(self, parts: np.ndarray) -> None:
        self.reader.keep_apart(parts)

    def leave_out(self, unreadable: dict[int, str]) -> None:
        self.reader.leave_out(unreadable)


class Changed(_Around):
    """A reader whose examples go through a function, such as one that scales them."""

    def __init__(self, reader: Reader, change: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__(reader)
        self.change = change
        self.dtype = change(np.zeros((1, *reader.shape), reader.dtype)).dtype

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.change(self.reader.read(rows))


def change(x: Any, function: Callable[[np.ndarray], np.ndarray]) -> Any:
    """What a function makes of examples [n, ...], row by row; stored ones are not read for it."""
    return Stored(Changed(x.reader, function), x.rows) if isinstance(x, Stored) else function(x)


class Cached(_Around):
    """A reader that keeps what it has read, until it holds so many bytes.

    What has come first stays: in batches that go through all examples again and again, every
    example is as likely to be asked for next.
    """

    def __init__(self, reader: Reader, bound: int) -> None:
        super().__init__(reader)
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
