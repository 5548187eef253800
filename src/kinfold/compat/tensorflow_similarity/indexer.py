"""`tensorflow_similarity.indexer.Indexer`: embeddings to search, measure and match."""

from __future__ import annotations

import collections
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinfold.compat.tensorflow_similarity import index_files
from kinfold.compat.tensorflow_similarity.distances import get
from kinfold.compat.tensorflow_similarity.evaluators import Evaluator, MemoryEvaluator
from kinfold.compat.tensorflow_similarity.measured import Measured
from kinfold.compat.tensorflow_similarity.search import NAMES, Search, make_search
from kinfold.compat.tensorflow_similarity.stores import MemoryStore, Store
from kinfold.compat.tensorflow_similarity.types import Lookup
from kinfold.compat.tensorflow_similarity.utils import table
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.metrics.task import to_numpy


class Indexer(Measured):
    """Embeddings with labels and data, and the search, the evaluation and the thresholds over them.

    Prefer `kinfold.Index` and `kinfold.thresholds`: an `Index` also filters, removes and replaces.

    Args:
        embedding_size: d, the size of an embedding.
        distance: one of the names of `distances.get`, or a `Distance`.
        search: "nmslib", "linear" or "faiss", or a `Search`. The first two compare every embedding.
        kv_store: "memory", or a `Store`.
        evaluator: "memory", or an `Evaluator`.
        embedding_output: which of several outputs of a model is the embedding; None for its one.
        stat_buffer_size: of how many of the last queries `stats` tells the time.

    Raises:
        ValueError: an unknown search, store, evaluator or distance.

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.indexer import Indexer
    >>> index = Indexer(embedding_size=2)
    >>> index.batch_add(np.eye(2, dtype="float32"), labels=[3, 4], verbose=0)
    >>> [(one.label, one.distance) for one in index.single_lookup(np.array([[0.0, 2.0]]), k=1)]
    [(4, 0.0)]
    """

    def __init__(
        self,
        embedding_size: int,
        distance: Any = "cosine",
        search: Search | str = "nmslib",
        kv_store: Store | str = "memory",
        evaluator: Evaluator | str = "memory",
        embedding_output: int | None = None,
        stat_buffer_size: int = 1000,
    ) -> None:
        self.embedding_size = checks.count(embedding_size, "embedding_size")
        self.distance = get(distance)
        self.search_type, self.kv_store_type, self.evaluator_type = search, kv_store, evaluator
        self.embedding_output = embedding_output
        self.stat_buffer_size = checks.count(stat_buffer_size, "stat_buffer_size")
        self._begin(search, kv_store)

    def _begin(self, search: Search | str, kv_store: Store | str) -> None:
        if isinstance(search, str):
            kind = NAMES[checks.choice(search, "search", tuple(NAMES))]
            search = kind(self.distance, self.embedding_size)
        self.search: Search = _of_kind(search, Search, "search")
        if isinstance(kv_store, str):
            checks.choice(kv_store, "kv_store", ("memory",))
            kv_store = MemoryStore()
        self.kv_store: Store = _of_kind(kv_store, Store, "kv_store")
        evaluator = self.evaluator_type
        if isinstance(evaluator, str):
            checks.choice(evaluator, "evaluator", ("memory",))
            evaluator = MemoryEvaluator()
        self.evaluator: Evaluator = _of_kind(evaluator, Evaluator, "evaluator")
        self._lookups = 0
        self._seconds: collections.deque[float] = collections.deque(maxlen=self.stat_buffer_size)
        self._uncalibrated()

    def reset(self) -> None:
        """Forget all embeddings, statistics and thresholds.

        Raises:
            ValueError: the search or the store is one of your own, which cannot be made anew here.
        """
        if isinstance(self.kv_store_type, Store):
            raise ValueError(
                "An indexer with a store of your own cannot be reset: empty the store and make an "
                "Indexer anew."
            )
        search = self.search_type
        self._begin(
            search if isinstance(search, str) else make_search(search.get_config()),
            self.kv_store_type,
        )

    def _embeddings(self, predictions: Any) -> np.ndarray:
        if self.embedding_output is not None:
            predictions = predictions[self.embedding_output]
        rows = to_numpy(predictions)
        if rows.ndim != 2 or rows.shape[1] != self.embedding_size:
            raise ValueError(
                f"This indexer is of embeddings [n, {self.embedding_size}]. Received shape "
                f"{rows.shape}."
            )
        return rows

    def add(
        self,
        prediction: Tensor,
        label: int | None = None,
        data: Any = None,
        build: bool = True,
        verbose: int = 1,
    ) -> None:
        """Add one embedding.

        Args:
            prediction: what a model gives for one example, [1, d].
            label: its class id, or None.
            data: what belongs to it, or None.
            build, verbose: what the search is told: whether it is searched before more is added.
        """
        embedding = self._embeddings(prediction)[0]
        self.search.add(embedding, self.kv_store.add(embedding, label, data), verbose, build)

    def batch_add(
        self,
        predictions: Tensor,
        labels: Sequence[int] | Tensor | None = None,
        data: Sequence[Any] | None = None,
        build: bool = True,
        verbose: int = 1,
    ) -> None:
        """Add the embeddings of n examples, [n, d]; see `add`."""
        embeddings = self._embeddings(predictions)
        numbers = self.kv_store.batch_add(embeddings, labels, data)
        self.search.batch_add(embeddings, numbers, verbose, build)

    def single_lookup(self, prediction: Tensor, k: int = 5) -> list[Lookup]:
        """Find the k nearest of one embedding [1, d], nearest first."""
        return self._found(self._embeddings(prediction)[:1], k)[0]

    def batch_lookup(self, predictions: Any, k: int = 5, verbose: int = 1) -> list[list[Lookup]]:
        """Find the k nearest of each of n embeddings [n, d], nearest first; prints nothing."""
        return self._found(self._embeddings(predictions), k)

    def _found(self, embeddings: np.ndarray, k: int) -> list[list[Lookup]]:
        start = time.perf_counter()
        found = []
        for numbers, distances in zip(*self.search.batch_lookup(embeddings, k=k), strict=True):
            columns = zip(*self.kv_store.batch_get(numbers), distances, strict=True)
            found.append(
                [
                    Lookup(rank, float(distance), label, embedding, data)
                    for rank, (embedding, label, data, distance) in enumerate(columns, 1)
                ]
            )
        self._lookups += len(found)
        each = (time.perf_counter() - start) / max(1, len(found))
        self._seconds.extend([each] * min(len(found), self.stat_buffer_size))
        return found

    def save(self, path: str | Path, compression: bool = True) -> None:
        """Write the index into a folder.

        Raises:
            ValueError: the store or the evaluator is one of your own, of which no name is known.
        """
        index_files.save(self, path, compression)

    @staticmethod
    def load(path: str | Path, verbose: int = 1) -> Indexer:
        """Read an index that `save` wrote; `verbose` 1 tells its size.

        Raises:
            FileNotFoundError: there is none.
        """
        return index_files.load(Indexer, path, verbose)

    def size(self) -> int:
        """Return the number of embeddings."""
        return self.kv_store.size()

    def stats(self) -> dict[str, Any]:
        """Return the size, the number of lookups, and the seconds that a query took."""
        seconds = list(self._seconds) or [0.0]
        return {
            "num_lookups": self._lookups,
            "size": self.size(),
            "stat_buffer_size": self.stat_buffer_size,
            "query_performance": {
                "min": np.min(seconds),
                "max": np.max(seconds),
                "avg": np.average(seconds),
                "median": np.median(seconds),
                "stddev": np.std(seconds),
            },
        }

    def print_stats(self) -> None:
        """Print what the index is and how fast it answers."""
        told = self.stats()
        rows = [
            ["distance", self.distance.name],
            ["search", self.search.name],
            ["size", told["size"]],
            ["calibrated", self.is_calibrated],
            ["calibration metric", self.calibration_metric.name],
            ["lookups", told["num_lookups"]],
            *([f"seconds per query, {name}", x] for name, x in told["query_performance"].items()),
        ]
        print(table(rows))

    def to_data_frame(self, num_items: int = 0) -> Any:
        """Return the first records, all for 0, as a `pandas.DataFrame`."""
        return self.kv_store.to_data_frame(num_items)


def _of_kind(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(
            f"`{name}` must be a {kind.__name__} or one of the names. Received: {value!r}."
        )
    return value
