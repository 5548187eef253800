"""Every vector is compared, in blocks on the processor or on what the backend computes with."""

from typing import Any

import numpy as np

from kinfold.metrics.compared import Gallery
from kinfold.metrics.retrieval import neighbours


class Exact:
    """Finds exactly the nearest, by any distance.

    Args:
        distance: what `kinfold.distances.get` takes.
    """

    def __init__(self, distance: Any) -> None:
        self.distance = distance
        self._gallery: Gallery | None = None
        self._numbers = np.empty(0, np.int64)
        self._new: list[np.ndarray] = []

    def add(self, vectors: np.ndarray, numbers: np.ndarray) -> None:
        self._new.append(vectors)
        self._numbers = np.concatenate([self._numbers, numbers])

    def remove(self, numbers: np.ndarray) -> None:
        kept = ~np.isin(self._numbers, numbers)
        gallery = self._ready()
        self._numbers = self._numbers[kept]
        self._gallery = gallery.take(kept) if len(self._numbers) else None

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
        gallery, numbers = self._ready(), self._numbers
        if allowed is not None:
            rows = np.searchsorted(numbers, allowed)
            gallery, numbers = gallery.take(rows), numbers[rows]
        return numbers[neighbours(queries, min(k, len(numbers)), gallery, self.distance)[0]]

    def _ready(self) -> Gallery:
        if self._gallery is None:
            self._gallery = Gallery(np.concatenate(self._new), self.distance)
        elif self._new:
            self._gallery = self._gallery.extended(np.concatenate(self._new))
        self._new = []
        return self._gallery
