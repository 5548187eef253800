"""What finds neighbours and clusters, under the names of pytorch-metric-learning."""

import os
from typing import Any

import numpy as np

from kinfold.compat.pytorch_metric_learning import distances
from kinfold.compat.pytorch_metric_learning.utils import embedding
from kinfold.compat.pytorch_metric_learning.utils.embedding import as_numpy
from kinfold.core import checks
from kinfold.metrics import neighbours
from kinfold.search import Index


class _Flat:
    """`kinfold.Index` of squared Euclidean distances, with the methods of FAISS."""

    def __init__(self, index: Index | None = None) -> None:
        self.index = Index("squared_euclidean", engine="exact") if index is None else index

    def add(self, rows: np.ndarray) -> None:
        self.index.add(rows)

    def search(self, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        found = self.index.search(rows, k)
        missing = ~np.isfinite(found.distances)
        return found.distances, np.where(missing, -1, found.ids).astype("int64")


class FaissKNN:
    """The nearest by squared Euclidean distance, exact; or by an index of FAISS.

    Args:
        reset_before: whether each call begins with an empty index.
        reset_after: whether each call ends with none.
        index_init_fn: makes an index of FAISS from a dimension; None for `kinfold.Index`, which
            needs no FAISS.
        gpus: None; the search runs where Keras does.
    """

    def __init__(
        self,
        reset_before: bool = True,
        reset_after: bool = True,
        index_init_fn: Any = None,
        gpus: Any = None,
    ) -> None:
        if gpus is not None:
            raise NotImplementedError(
                f"The search runs where Keras does: leave `gpus` out. Received: gpus={gpus!r}."
            )
        self.reset_before, self.reset_after = bool(reset_before), bool(reset_after)
        self.index_init_fn = index_init_fn
        self.index: Any = None

    def __call__(
        self, query: Any, k: int, reference: Any = None, ref_includes_query: bool = False
    ) -> tuple[Any, Any]:
        """Find the k nearest of each query.

        Args:
            query: [n, d].
            k: how many.
            reference: [m, d], added to the index first; None for what is in it.
            ref_includes_query: whether reference i is query i, and is left out of its list.

        Returns:
            Squared distances [n, k] and positions, integers [n, k].
        """
        x = as_numpy(query).astype("float32")
        if self.reset_before:
            self.index = self._new(x.shape[1])
        if self.index is None:
            raise ValueError("There is no index: call `train`, or pass reset_before=True.")
        if reference is not None:
            self.add(reference)
        values, at = self.index.search(x, k + bool(ref_includes_query))
        if self.reset_after:
            self.reset()
        return _results(values, at, ref_includes_query)

    def train(self, embeddings: Any) -> None:
        """Begin an index with `embeddings` [n, d]."""
        self.index = self._new(embeddings.shape[1])
        self.add(embeddings)

    def add(self, embeddings: Any) -> None:
        """Add `embeddings` [n, d] to the index."""
        self.index.add(as_numpy(embeddings).astype("float32"))

    def save(self, filename: Any) -> None:
        """Write the index: a folder of `kinfold.Index`, or a file of FAISS."""
        if isinstance(self.index, _Flat):
            self.index.index.save(filename)
            return
        import faiss

        faiss.write_index(self.index, str(filename))

    def load(self, filename: Any) -> None:
        """Read an index that `save` wrote."""
        if os.path.isdir(filename):
            self.index = _Flat(Index.load(filename))
            return
        import faiss

        self.index = faiss.read_index(str(filename))

    def reset(self) -> None:
        """Forget the index."""
        self.index = None

    def _new(self, dimension: int) -> Any:
        return _Flat() if self.index_init_fn is None else self.index_init_fn(dimension)


class FaissKMeans:
    """k-means of FAISS, which has to be installed: `kinfold[faiss]`.

    Args:
        kwargs: arguments of `faiss.Kmeans`.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.kwargs = kwargs

    def __call__(self, x: Any, nmb_clusters: int) -> Any:
        """The cluster of each row of `x` [n, d], integers [n]."""
        try:
            import faiss
        except ImportError as error:
            raise ImportError(
                "k-means needs FAISS: pip install 'kinfold[faiss]', or pass `kmeans_func`."
            ) from error
        rows = np.ascontiguousarray(as_numpy(x), "float32")
        kmeans = faiss.Kmeans(rows.shape[1], nmb_clusters, **self.kwargs)
        kmeans.train(rows)
        return embedding.native(kmeans.index.search(rows, 1)[1][:, 0])


class CustomKNN:
    """The nearest by any distance, exact.

    Args:
        distance: one of `distances`.
        batch_size: queries that are compared at once; None chooses.
    """

    def __init__(self, distance: Any, batch_size: int | None = None) -> None:
        self.distance = distances.found(distance)
        self.batch_size = None if batch_size is None else checks.count(batch_size, "batch_size")

    def __call__(
        self, query: Any, k: int, reference: Any, ref_includes_query: bool = False
    ) -> tuple[Any, Any]:
        """Find the k nearest of each query; see `FaissKNN`."""
        number, step = k + bool(ref_includes_query), self.batch_size or len(query)
        starts = range(0, len(query), step)
        parts = [neighbours(query[i : i + step], number, reference, self.distance) for i in starts]
        at, values = (np.concatenate(part) for part in zip(*parts, strict=True))
        return _results(values, at, ref_includes_query)


def _results(values: np.ndarray, at: np.ndarray, ref_includes_query: bool) -> tuple[Any, Any]:
    """Lists without the query itself: without the last one where it is not among them."""
    if ref_includes_query:
        own = at == np.arange(len(at))[:, None]
        own[~own.any(axis=1), -1] = True
        values, at = (part[~own].reshape(len(at), -1) for part in (values, at))
    return embedding.native(values), embedding.native(at)
