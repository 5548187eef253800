"""The index of a bundle, which is searched by a matrix product; it needs no Keras."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from _kinfold_found import Neighbours, objects

_ROWS = 1 << 16  # vectors that are compared at once


class Items:
    """Items of an index with their embeddings, compared by the cosine distance, as runs do.

    Args:
        vectors: float32 [n, d].
        ids: of the items, object [n].
        labels: of the items, object [n].
        metadata: of the items, object [n].
    """

    def __init__(
        self, vectors: np.ndarray, ids: np.ndarray, labels: np.ndarray, metadata: np.ndarray
    ) -> None:
        self.ids, self.labels, self.metadata = ids, labels, metadata
        self._vectors = _unit(np.asarray(vectors, np.float32))
        self._row = {one: row for row, one in enumerate(ids.tolist())}

    @classmethod
    def load(cls, folder: Path) -> Items:
        """Read the files of an index.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is empty, or has another distance.
        """
        try:
            head = json.loads((folder / "index.json").read_text("utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"There is no index in {folder.parent}: the run had none. Write it with kinfold "
                "index, and export anew."
            ) from None
        if head["distance"] != "cosine":
            raise ValueError(
                f"A bundle compares by the cosine distance. {folder} has {head['distance']!r}."
            )
        import pyarrow.parquet

        if not head["items"]:
            raise ValueError(f"The index in {folder} is empty, so there is nothing to search in.")
        vectors = np.load(folder / head["files"]["vectors"])
        table = pyarrow.parquet.read_table(folder / head["files"]["items"])
        ids, labels, metadata = (table[name].to_pylist() for name in ("id", "label", "metadata"))
        metadata = [one and json.loads(one) for one in metadata]
        return cls(vectors, *(objects(column, len(ids)) for column in (ids, labels, metadata)))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimension(self) -> int:
        """Numbers of an embedding."""
        return int(self._vectors.shape[1])

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Embeddings of unit norm, float32 [n, d], of these rows."""
        return self._vectors[rows]

    def rows(self, ids: Sequence[Any]) -> list[int]:
        """Where the items of these ids are.

        Raises:
            KeyError: there is none of an id.
        """
        return [self._row[one] for one in ids]

    def metadata_of(self, item: Any) -> Any:
        """What is known of an item; None where nothing is, or there is no such item."""
        row = self._row.get(item)
        return None if row is None else self.metadata[row]

    def search(self, embeddings: np.ndarray, k: int) -> Neighbours:
        """The nearest items of embeddings [n, d], [n, k], equally near ones in their order."""
        x = _unit(np.asarray(embeddings, np.float32))
        distances, at = _nearest(x, self._vectors, min(k, len(self)))
        return Neighbours(self.ids[at], distances, self.labels[at], self.metadata[at])


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-12))


def _nearest(x: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine distances and rows of the k nearest of unit vectors, [n, k], equal ones by row."""
    nearest, items = np.empty((len(x), 0), np.float32), np.empty((len(x), 0), np.int64)
    for start in range(0, len(vectors), _ROWS):
        d = np.maximum(1.0 - x @ vectors[start : start + _ROWS].T, 0.0)
        at = np.broadcast_to(np.arange(start, start + d.shape[1]), d.shape)
        nearest, items = np.hstack([nearest, d]), np.hstack([items, at])
        few = np.argpartition(nearest, min(k, nearest.shape[1] - 1), axis=1)[:, :k]
        few.sort(axis=1)
        nearest = np.take_along_axis(nearest, few, axis=1)
        items = np.take_along_axis(items, few, axis=1)
    order = np.argsort(nearest, axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1), np.take_along_axis(items, order, axis=1)
