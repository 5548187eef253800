"""Every vector is compared as a code of a byte or a bit per dimension; the best are candidates."""

from typing import Protocol

import numpy as np

from kinfold import distances
from kinfold.metrics import product
from kinfold.metrics.rows import half_squares, unit_rows
from kinfold.metrics.shortlists import Shortlists

_BLOCK = 8192  # vectors that are decoded at once
_QUERIES = 1024


class Codec(Protocol):
    """Rows as codes, and what they stand for.

    Attributes:
        more: candidates per item that is wanted, enough that rescoring hardly misses one.
    """

    more: int

    def encode(self, rows: np.ndarray) -> tuple[np.ndarray, ...]: ...

    def decode(self, codes: tuple[np.ndarray, ...]) -> np.ndarray: ...


class Int8:
    """A byte per dimension, in steps of a 127th of a row's largest entry."""

    more = 4

    def encode(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        step = np.abs(rows).max(axis=1, keepdims=True) / 127
        return np.rint(rows / np.where(step > 0, step, 1)).astype(np.int8), step

    def decode(self, codes: tuple[np.ndarray, ...]) -> np.ndarray:
        return codes[0] * codes[1]


class Binary:
    """A bit per dimension: its sign, and the mean size of a row's entries."""

    more = 30

    def __init__(self) -> None:
        self.dimension = 0

    def encode(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        self.dimension = rows.shape[1]
        return np.packbits(rows > 0, axis=1), np.abs(rows).mean(axis=1, keepdims=True)

    def decode(self, codes: tuple[np.ndarray, ...]) -> np.ndarray:
        bits = np.unpackbits(codes[0], axis=1, count=self.dimension).astype(np.float32)
        return (2 * bits - 1) * codes[1]


CODECS: dict[str, type[Int8] | type[Binary]] = {"int8": Int8, "binary": Binary}


class Compressed:
    """Finds candidates by codes, which take a quarter or a thirty-second of the floats' memory.

    Args:
        kind: the distance: cosine, euclidean, squared_euclidean or inner_product.
        codec: "int8" or "binary".
    """

    def __init__(self, kind: distances.Distance, codec: str) -> None:
        self.kind = kind
        self.codec: Codec = CODECS[codec]()
        self._numbers = np.empty(0, np.int64)
        self._codes: tuple[np.ndarray, ...] = ()
        self._mean: np.ndarray | None = None  # of the first vectors, from which codes are taken

    def add(self, vectors: np.ndarray, numbers: np.ndarray) -> None:
        rows = self._ready(vectors)
        if self._mean is None:
            self._mean = rows.mean(axis=0, dtype=np.float64)
        new = self.codec.encode((rows - self._mean).astype(np.float32))
        old = self._codes or tuple(part[:0] for part in new)
        self._codes = tuple(np.concatenate(pair) for pair in zip(old, new, strict=True))
        self._numbers = np.concatenate([self._numbers, numbers])

    def remove(self, numbers: np.ndarray) -> None:
        kept = ~np.isin(self._numbers, numbers)
        self._numbers = self._numbers[kept]
        self._codes = tuple(part[kept] for part in self._codes)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
        x = self._ready(queries)
        numbers, codes = self._numbers, self._codes
        if allowed is not None:
            rows = np.searchsorted(numbers, allowed)
            numbers, codes = numbers[rows], tuple(part[rows] for part in codes)
        k = min(k * self.codec.more, len(numbers))
        out = np.empty((len(x), k), np.int64)
        for start in range(0, len(x), _QUERIES):
            some = x[start : start + _QUERIES]
            out[start : start + _QUERIES] = numbers[self._best(some, k, codes)]
        return out

    def _ready(self, rows: np.ndarray) -> np.ndarray:
        return unit_rows(rows) if self.kind.needs_unit_rows else rows

    def _best(self, x: np.ndarray, k: int, codes: tuple[np.ndarray, ...]) -> np.ndarray:
        lists = Shortlists(len(x), k, np.full(len(x), np.inf, np.float32), ties=False)
        # Rows of unit norm are ranked by squares, too: codes err less in differences from the mean.
        # A product with the mean is the same for all items, so that it need not be added.
        squares = not self.kind.similarity
        ours = product.given((x - self._mean if squares else x).astype(np.float32))
        for start in range(0, len(codes[0]), _BLOCK):
            rows = self.codec.decode(tuple(part[start : start + _BLOCK] for part in codes))
            tile = product.of(ours, product.given(rows))
            if squares:
                tile -= half_squares(rows)
            lists.offer(tile, 0, start)
        lists.tighten()
        return lists.items[:, :k]
