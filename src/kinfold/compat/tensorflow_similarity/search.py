"""`tensorflow_similarity.search`: what finds the nearest embeddings, on the engines of `Index`."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinfold.compat.tensorflow_similarity.distances import get
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.metrics.task import to_numpy
from kinfold.search import Index


class Search(abc.ABC):
    """What an `Indexer` finds embeddings with; subclass it for a search of your own.

    Args:
        distance: one of the names of `distances.get`, or a `Distance`.
        dim: size of an embedding.
        verbose: 1 may print what it does.
        name: of the search.

    Raises:
        ValueError: a similarity, of which larger is closer: thresholds are distances here.
    """

    def __init__(
        self, distance: Any, dim: int, verbose: int = 0, name: str | None = None, **kwargs: Any
    ) -> None:
        kwargs.pop("canonical_name", None)  # of a config
        if kwargs:
            raise TypeError(f"{type(self).__name__} takes no argument {sorted(kwargs)[0]!r}.")
        self.distance = get(distance)
        if self.distance.similarity:
            raise ValueError(
                "A search here takes distances, of which smaller is closer. Received: "
                f"distance={self.distance.name!r}; pass 'cosine', or use kinfold.Index."
            )
        self.dim, self.verbose = checks.count(dim, "dim"), verbose
        self.name = name if name is not None else type(self).__name__

    @abc.abstractmethod
    def add(
        self, embedding: Tensor, idx: int, verbose: int = 1, build: bool = True, **kwargs: Any
    ) -> None:
        """Add an embedding [d] under the number `idx`."""

    @abc.abstractmethod
    def batch_add(
        self,
        embeddings: Tensor,
        idxs: Sequence[int],
        verbose: int = 1,
        build: bool = True,
        **kwargs: Any,
    ) -> None:
        """Add embeddings [n, d] under the numbers `idxs`."""

    @abc.abstractmethod
    def lookup(self, embedding: Tensor, k: int = 5) -> tuple[list[int], list[float]]:
        """Return the numbers and the distances of the k nearest of an embedding [d]."""

    @abc.abstractmethod
    def batch_lookup(
        self, embeddings: Tensor, k: int = 5
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Return the numbers and the distances of the k nearest of each embedding [n, d]."""

    @abc.abstractmethod
    def save(self, path: str) -> None:
        """Write the search into a folder."""

    @abc.abstractmethod
    def load(self, path: str) -> None:
        """Read what `save` wrote."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this search again, empty, and its class's name."""
        return {
            "distance": self.distance.name,
            "dim": self.dim,
            "verbose": self.verbose,
            "name": self.name,
            "canonical_name": type(self).__name__,
        }


class _OfIndex(Search):
    """A search on a `kinfold.Index`, whose ids are the numbers.

    Embeddings can be found as soon as they are added, whatever `build` and `verbose` say.
    """

    engine = "exact"

    def __init__(
        self, distance: Any, dim: int, verbose: int = 0, name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(distance, dim, verbose, name, **kwargs)
        self._index = Index(self.distance, self.engine, options=self._options())

    def _options(self) -> dict[str, Any] | None:
        return None

    def add(
        self, embedding: Tensor, idx: int, verbose: int = 1, build: bool = True, **kwargs: Any
    ) -> None:
        self.batch_add(to_numpy(embedding)[None], [idx], verbose, build)

    def batch_add(
        self,
        embeddings: Tensor,
        idxs: Sequence[int],
        verbose: int = 1,
        build: bool = True,
        **kwargs: Any,
    ) -> None:
        self._index.add(self._rows(embeddings), ids=list(map(int, idxs)))

    def lookup(self, embedding: Tensor, k: int = 5) -> tuple[list[int], list[float]]:
        numbers, distances = self.batch_lookup(to_numpy(embedding)[None], k)
        return numbers[0], distances[0]

    def batch_lookup(
        self, embeddings: Tensor, k: int = 5
    ) -> tuple[list[list[int]], list[list[float]]]:
        found = self._index.search(self._rows(embeddings), k)
        width = min(k, len(self._index))
        return found.ids[:, :width].tolist(), found.distances[:, :width].tolist()

    def save(self, path: str) -> None:
        self._index.save(Path(path) / "search")

    def load(self, path: str) -> None:
        loaded = Index.load(Path(path) / "search")
        if len(loaded):
            loaded.check(self.dim, "")
        self._index = loaded

    def _rows(self, embeddings: Tensor) -> np.ndarray:
        rows = to_numpy(embeddings)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise ValueError(
                f"This search is of embeddings [n, {self.dim}]. Received shape {rows.shape}."
            )
        return rows


class LinearSearch(_OfIndex):
    """Compares every embedding.

    Args:
        distance, dim, verbose, name: as for `Search`.

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.search import LinearSearch
    >>> search = LinearSearch("l2", dim=2)
    >>> search.batch_add(np.array([[0.0, 0.0], [3.0, 4.0]]), idxs=[0, 1])
    >>> search.lookup(np.array([3.0, 3.0]), k=1)
    ([1], [1.0])
    """


class NMSLibSearch(_OfIndex):
    """What is searched by NMSLIB there: here every embedding is compared, up to a million.

    Beyond a million, FAISS searches if it is installed; see the engine "auto" of `kinfold.Index`.

    Args:
        distance, dim, verbose, name: as for `Search`.
        method: "hnsw".
        space_params, data_type, dtype, index_params, query_params: None.

    Raises:
        ValueError: parameters of NMSLIB; `FaissSearch(factory="HNSW32")` takes those of FAISS.
    """

    engine = "auto"

    def __init__(
        self,
        distance: Any,
        dim: int,
        method: str = "hnsw",
        space_params: Mapping[str, Any] | None = None,
        data_type: Any = None,
        dtype: Any = None,
        index_params: Mapping[str, Any] | None = None,
        query_params: Mapping[str, Any] | None = None,
        verbose: int = 0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        given = {
            "space_params": space_params,
            "data_type": data_type,
            "dtype": dtype,
            "index_params": index_params,
            "query_params": query_params,
            "method": None if method == "hnsw" else method,
        }
        for argument, value in given.items():
            if value is not None:
                raise ValueError(
                    "NMSLibSearch compares every embedding and takes no parameters of NMSLIB. "
                    f"Received: {argument}={value!r}; leave it out, or take "
                    "FaissSearch(factory='HNSW32')."
                )
        super().__init__(distance, dim, verbose, name, **kwargs)


class FaissSearch(_OfIndex):
    """An approximate search by FAISS.

    Args:
        distance, dim, verbose, name: as for `Search`.
        factory: what FAISS is to build, such as "HNSW32" or "IVF1024,PQ16"; None to choose by the
            number of embeddings.

    Raises:
        ImportError: FAISS is not installed.
        ValueError: FAISS has no such distance.
    """

    engine = "faiss"

    def __init__(
        self,
        distance: Any,
        dim: int,
        factory: str | None = None,
        verbose: int = 0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.factory = factory
        super().__init__(distance, dim, verbose, name, **kwargs)

    def _options(self) -> dict[str, Any] | None:
        return {"factory": self.factory} if self.factory else None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factory": self.factory}


_KNOWN: dict[str, type[_OfIndex]] = {
    kind.__name__: kind for kind in (NMSLibSearch, LinearSearch, FaissSearch)
}
NAMES: dict[str, type[_OfIndex]] = {
    "nmslib": NMSLibSearch,
    "linear": LinearSearch,
    "faiss": FaissSearch,
}


def make_search(config: Mapping[str, Any]) -> Search:
    """Make an empty search of what `get_config` returned.

    Raises:
        ValueError: it is of a class that is not one of these.
    """
    name = config.get("canonical_name")
    if name not in _KNOWN:
        raise ValueError(f"Unknown search. Expected one of {sorted(_KNOWN)}. Received: {name!r}.")
    return _KNOWN[name](**config)
