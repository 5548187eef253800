"""FAISS: graphs (HNSW) or inverted lists with product quantization, in one process's memory."""

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kinfold import distances
from kinfold.core import files
from kinfold.metrics.rows import unit_rows

# Beyond this many vectors a graph takes too long to build and too much memory.
_GRAPH_UP_TO = 2_000_000
_BREADTH = 128  # of a search in a graph
_TRAIN = 200_000  # vectors that lists and codes are learned from
_MORE = 4  # candidates for each item wanted, where codes stand for vectors


class Faiss:
    """Finds most of the nearest.

    Args:
        kind: the distance: cosine, euclidean, squared_euclidean or inner_product.
        dimension: of the vectors.
        factory: what `faiss.index_factory` takes; None for "HNSW32" up to two million vectors, and
            "IVF4096,PQ64" or as many codes as the dimension allows beyond.
    """

    def __init__(
        self, kind: distances.Distance, dimension: int, factory: str | None = None
    ) -> None:
        try:
            self.faiss: Any = importlib.import_module("faiss")
        except ImportError:
            raise ImportError("The engine faiss needs FAISS: pip install kinfold[faiss]") from None
        self.kind = kind
        self.dimension = dimension
        self.factory = factory
        self.index: Any = None
        self.numbers = np.empty(0, np.int64)  # of the vectors in the order in which FAISS has them
        self.gone = np.empty(0, bool)

    def add(self, vectors: np.ndarray, numbers: np.ndarray) -> None:
        rows = self._ready(vectors)
        if self.index is None:
            self.index = self._made(len(rows))
        with self._named():
            if not self.index.is_trained:
                step = max(1, len(rows) // _TRAIN)
                self.index.train(rows[::step])
            self.index.add(rows)
        self.numbers = np.concatenate([self.numbers, numbers])
        self.gone = np.concatenate([self.gone, np.zeros(len(numbers), bool)])

    def remove(self, numbers: np.ndarray) -> None:
        self.gone[np.searchsorted(self.numbers, numbers)] = True

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
        there = ~self.gone
        if allowed is not None:
            there &= np.isin(self.numbers, allowed)
        k = min(k if self._is_graph() else k * _MORE, int(there.sum()))
        selector = None
        if not there.all():
            bits = np.packbits(there, bitorder="little")
            selector = self.faiss.IDSelectorBitmap(len(there), self.faiss.swig_ptr(bits))
        with self._named():
            parameters = self._parameters(selector, k)
            found = self.index.search(self._ready(queries), k, params=parameters)[1]
        return np.where(found < 0, -1, self.numbers[found])

    def keep(self, folder: Path, name: str) -> None:
        if self.index is None or self.gone.any():
            return
        with (
            contextlib.suppress(OSError, RuntimeError),  # no room, or not ours to write
            files.atomic_write(self._file(folder, name)) as beside,
        ):
            self.faiss.write_index(self.index, str(beside))

    def restore(self, folder: Path, name: str, count: int) -> bool:
        path = self._file(folder, name)
        if not path.exists():
            return False
        try:
            found = self.faiss.read_index(str(path))
        except RuntimeError:  # damaged
            return False
        if (found.ntotal, found.d) != (count, self.dimension):
            return False
        self.index = found
        self.numbers, self.gone = np.arange(count), np.zeros(count, bool)
        return True

    def _file(self, folder: Path, name: str) -> Path:
        return folder / f"faiss-{name}-{self.faiss.__version__}.index"

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Say in a sentence which index of FAISS cannot do what it is asked for."""
        try:
            yield
        except (RuntimeError, AssertionError) as error:
            why = (str(error).strip() or "it gives no reason").splitlines()[-1]
            raise ValueError(
                f"The index {self.factory or 'HNSW32'!r} of FAISS cannot be used here: {why}"
            ) from error

    def _is_graph(self) -> bool:
        return isinstance(self.index, self.faiss.IndexHNSW)

    def _parameters(self, selector: Any, k: int) -> Any:
        if self._is_graph():
            return self.faiss.SearchParametersHNSW(sel=selector, efSearch=max(_BREADTH, 2 * k))
        if isinstance(self.index, self.faiss.IndexIVF):
            probes = min(self.index.nlist, max(8, self.index.nlist // 32))
            return self.faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        return self.faiss.SearchParameters(sel=selector) if selector is not None else None

    def _made(self, count: int) -> Any:
        factory = self.factory
        if factory is None:
            codes = next(c for c in (64, 48, 32, 16, 8, 4, 2, 1) if self.dimension % c == 0)
            factory = "HNSW32" if count <= _GRAPH_UP_TO else f"IVF4096,PQ{codes}"
        metric = self.faiss.METRIC_L2
        if self.kind.needs_unit_rows or self.kind.similarity:
            metric = self.faiss.METRIC_INNER_PRODUCT
        try:
            made = self.faiss.index_factory(self.dimension, factory, metric)
        except RuntimeError:
            raise ValueError(
                f"FAISS knows no index {factory!r} of {self.dimension} dimensions; such as "
                "'HNSW32' or 'IVF1024,PQ16' name one."
            ) from None
        if isinstance(made, self.faiss.IndexHNSW):
            made.hnsw.efConstruction = 80
        return made

    def _ready(self, rows: np.ndarray) -> np.ndarray:
        rows = unit_rows(rows) if self.kind.needs_unit_rows else rows
        return np.ascontiguousarray(rows, np.float32)
