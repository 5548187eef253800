"""The index: vectors with ids, labels and metadata, and the search in them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from kinfold import distances
from kinfold.core.checks import Tensor
from kinfold.metrics.rows import checked
from kinfold.search import choice, store
from kinfold.search.engines import Engine
from kinfold.search.found import Neighbours, taken
from kinfold.search.items import Items, Where
from kinfold.search.measured import compare, measure
from kinfold.search.vectors import Vectors

# With no more items than this to choose among, all of them are compared, whatever the engine.
_FEW = 20_000
_QUERIES = 4096  # that are measured at once


class Index:
    """Embeddings with their ids, labels and metadata, to be searched and to be kept in files.

    Args:
        distance: a name that `kinfold.distances.get` knows, or a `Distance`.
        engine: "exact" compares every vector; "faiss" and "milvus" find nearly all of the nearest,
            faster; "auto" is "exact" up to a million vectors and "faiss" beyond, if installed.
        compress: "int8" or "binary" compares codes first, which take a quarter or a thirty-second
            of the vectors' memory. It then compares the best by their vectors, which stay on the
            disk once the index is saved. Only for the engine "exact".
        options: arguments of the engine. "faiss" takes `factory`, such as "IVF1024,PQ16"; "milvus"
            takes `uri`, `token` and `collection`, and without them keeps a file beside the index.
            The token is never saved: a loaded index takes it from KINFOLD_MILVUS_TOKEN.
        model: the model that gave the embeddings; `check` refuses an index of another one.

    Raises:
        ValueError: an unknown distance or engine, or an engine that cannot use the distance.
        ImportError: the engine's package is not installed.

    Example:

    >>> import numpy as np
    >>> import kinfold
    >>> index = kinfold.Index("euclidean")
    >>> index.add(np.array([[0.0, 0], [3, 4], [6, 8]]), ids=["a", "b", "c"], labels=["x", "x", "y"])
    >>> found = index.search(np.array([[0.0, 1]]), k=2)
    >>> found.ids.tolist(), found.labels.tolist(), found.distances[0, 0].item()
    ([['a', 'b']], [['x', 'x']], 1.0)
    >>> index.search(np.array([[0.0, 1]]), k=2, where={"label": "y"}).ids.tolist()
    [['c', None]]
    """

    def __init__(
        self,
        distance: Any = "cosine",
        engine: str = "auto",
        *,
        compress: str | None = None,
        options: dict[str, Any] | None = None,
        model: str = "",
    ) -> None:
        self.distance = distances.get(distance)
        choice.check(engine, self.distance, compress, options)
        self.engine, self.compress = engine, compress
        self.options = dict(options or {})
        self.model = model
        self.path: str | None = None
        self._items, self._vectors = Items(), Vectors()
        self._numbers = np.empty(0, np.int64)  # what the engine calls each row
        self._next_number = 0
        self._engine: Engine | None = None
        self._built = 0  # how many items the engine was made of
        self._saved = ""  # the name of the files in `path` that hold just these items

    def __len__(self) -> int:
        return len(self._items)

    @property
    def dimension(self) -> int | None:
        """Dimension of the vectors; None while there are none."""
        return self._vectors.dimension

    @property
    def version(self) -> tuple[int, int]:
        """Changes whenever items are added or removed."""
        return self._next_number, len(self)

    @property
    def ids(self) -> np.ndarray:
        """The ids, object [n], in the order in which the items were added."""
        return self._items.ids.copy()

    @property
    def labels(self) -> np.ndarray:
        """The labels, object [n]."""
        return self._items.labels.copy()

    def vectors(self, rows: np.ndarray | None = None) -> np.ndarray:
        """The vectors, float32 [n, d], or those of some rows."""
        return self._vectors.take(np.arange(len(self)) if rows is None else rows)

    def rows(self, ids: Any) -> list[int]:
        """Where the items of these ids are; ValueError where one is not there."""
        return self._items.rows(ids)

    def metadata_of(self, item: int | str) -> dict[str, Any] | None:
        """The metadata of an item, {} where it has none; None where there is no such item."""
        row = self._items.row_of.get(item)
        return None if row is None else (self._items.metadata[row] or {})

    def check(self, dimension: int, model: str) -> None:
        """Refuse to be used with embeddings of another size or another model.

        Raises:
            ValueError: which of both is different.
        """
        if self.dimension not in (None, dimension):
            raise ValueError(
                f"This index holds vectors of {self.dimension} dimensions. Received embeddings of "
                f"{dimension}: they are of another model. Build an index anew."
            )
        if self.model and model and self.model != model:
            raise ValueError(
                "This index holds embeddings of another model, which cannot be compared: build an "
                f"index anew. It is of the model {self.model[:12]}, and this is {model[:12]}."
            )

    def add(
        self, embeddings: Tensor, ids: Any = None, labels: Any = None, metadata: Any = None
    ) -> None:
        """Add items; an item whose id is there already takes its place.

        Args:
            embeddings: floating [n, d], an array or a tensor of the backend; kept in float32.
            ids: n integers or n strings, all different; None numbers them on.
            labels: n integers, strings or None; None for none.
            metadata: n dictionaries of what JSON can hold, or a dictionary of n values for each
                field.

        Raises:
            ValueError: other shapes, another dimension, not finite, an id twice.
            TypeError: ids, labels or metadata of another kind.
        """
        rows = np.array(checked(embeddings, "embeddings"), np.float32, order="C")  # its own
        self.check(rows.shape[1], "")
        new = self._items.new(len(rows), ids, labels, metadata)
        there = [one for one in new.ids.tolist() if one in self._items.row_of]
        if there:
            self.remove(there)
        numbers = np.arange(self._next_number, self._next_number + len(rows))
        if self._engine is not None and len(self) + len(rows) > 2 * self._built:
            self._forget_engine()  # what it has learned is of too few
        self._saved = ""
        if self._engine is not None:
            self._engine.add(rows, numbers)
        self._next_number += len(rows)
        self._items.extend(new)
        self._vectors.append(rows)
        self._numbers = np.concatenate([self._numbers, numbers])

    def remove(self, ids: Any) -> None:
        """Remove items.

        Args:
            ids: of the items, or one id.

        Raises:
            ValueError: an id is not there; nothing is removed then.
        """
        several = ids.tolist() if hasattr(ids, "tolist") else ids
        gone = self._items.rows([several] if isinstance(several, int | str) else several)
        if not gone:
            return
        self._saved = ""
        kept = np.ones(len(self), bool)
        kept[gone] = False
        if self._engine is not None:
            self._engine.remove(np.sort(self._numbers[~kept]))
        rows = np.flatnonzero(kept)
        self._items.keep(rows)
        self._vectors.keep(rows)
        self._numbers = self._numbers[rows]

    def search(
        self,
        queries: Tensor,
        k: int = 10,
        where: Where | None = None,
        radius: float | None = None,
    ) -> Neighbours:
        """Find the nearest items of each query.

        Args:
            queries: floating [q, d].
            k: how many of each, at least 1.
            where: only items whose fields have these values: {"label": "shoe"}, or {"shop": ["a",
                "b"]} for a field of the metadata that may be any of several.
            radius: only items no farther than this; with a similarity, no less similar.

        Returns:
            A named tuple of ids, distances, labels and metadata, arrays [q, k]. Where there are
            fewer items the rest is None, with an infinite distance.

        Raises:
            ValueError: k is below 1, the queries have another dimension or are not finite, or
                `where` names an unknown field.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer):
            raise TypeError(f"`k` must be a whole number. Received: k={k!r}.")
        if k < 1:
            raise ValueError(f"`k` must be at least 1. Received: k={k}.")
        x = np.ascontiguousarray(checked(queries, "queries"), np.float32)
        self.check(x.shape[1], "")
        rows = None if where is None else np.flatnonzero(self._items.matching(where))
        values = np.full((len(x), k), np.inf, np.float32)
        found = np.full((len(x), k), -1, np.int64)
        available = len(self) if rows is None else len(rows)
        if available:
            for start in range(0, len(x), _QUERIES):
                some = slice(start, start + _QUERIES)
                near, at = self._nearest(x[some], min(k, available), rows)
                values[some, : near.shape[1]], found[some, : near.shape[1]] = near, at
        if radius is not None:
            limit = -radius if self.distance.similarity else radius
            found[values > np.float32(limit)] = -1
        there = found >= 0
        values = -values if self.distance.similarity else values
        values = np.where(there, values, -np.inf if self.distance.similarity else np.inf)
        return Neighbours(
            taken(self._items.ids, found, there),
            values.astype(np.float32),
            taken(self._items.labels, found, there),
            taken(self._items.metadata, found, there),
        )

    def build(self) -> None:
        """Build what the engine needs now, in place of at the first search.

        Raises:
            ValueError: the engine cannot be made with these options.
        """
        if len(self):
            self._ready()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a folder; a crash leaves the old index or the new one.

        It holds `index.json`, the vectors (`vectors-*.npy`) and the items (`items-*.parquet`).
        Engines build what they need from these, and keep it for the next process.

        Raises:
            ImportError: pyarrow is not installed.
            kinfold.core.files.WriteError: the disk is full or the folder cannot be written to.
            ValueError: the folder holds something else.
        """
        store.save(self, path)
        choice.keep(self, self._engine)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Index:
        """Read an index that `save` wrote.

        Raises:
            FileNotFoundError: there is none.
            ValueError: a file is damaged, missing or of another version.
        """
        return store.load(cls, path)

    def _nearest(
        self, x: np.ndarray, k: int, rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distances, smaller is closer, and rows [q, k], both sorted."""
        if rows is not None and len(rows) <= _FEW:
            return compare(self.distance, self._vectors, x, k, rows)
        allowed = None if rows is None else self._numbers[rows]
        numbers = self._ready().search(x, k, allowed)
        at = np.searchsorted(self._numbers, numbers).clip(max=len(self) - 1)
        at = np.where(self._numbers[at] == numbers, at, -1)
        values, at = measure(self.distance, self._vectors, x, at)
        short = np.flatnonzero(at[:, :k].min(axis=1) < 0) if at.shape[1] >= k else np.arange(len(x))
        values, at = values[:, :k], at[:, :k]
        if len(short):  # a graph or a filter may give too few
            every = np.arange(len(self)) if rows is None else rows
            more = compare(self.distance, self._vectors, x[short], k, every)
            if at.shape[1] < k:
                return more
            values[short], at[short] = more
        return values, at

    def _forget_engine(self) -> None:
        if self._engine is not None and hasattr(self._engine, "close"):
            self._engine.close()
        self._engine = None

    def _ready(self) -> Engine:
        if self._engine is None:
            self._engine, self._built = choice.made(self), len(self)
        return self._engine
