"""`pytorch_metric_learning.utils.inference`: find neighbours and matches with a trained model.

Neighbours are exact, by `kinfold.Index` and `kinfold.metrics.neighbours`, and need no FAISS.
"""

from typing import Any

import numpy as np
from keras import ops

from kinfold.compat.pytorch_metric_learning import distances
from kinfold.compat.pytorch_metric_learning.utils import embedding
from kinfold.compat.pytorch_metric_learning.utils.embedding import as_numpy
from kinfold.compat.pytorch_metric_learning.utils.knn import CustomKNN as CustomKNN
from kinfold.compat.pytorch_metric_learning.utils.knn import FaissKMeans as FaissKMeans
from kinfold.compat.pytorch_metric_learning.utils.knn import FaissKNN as FaissKNN
from kinfold.core import checks
from kinfold.core.numerics import unit_rows


class MatchFinder:
    """Tells which pairs are at most (of a similarity: at least) at a threshold.

    Args:
        distance: one of `distances`.
        threshold: for calls without one.
    """

    def __init__(self, distance: Any, threshold: float | None = None) -> None:
        self.distance, self.threshold = distances.found(distance), threshold

    def get_matching_pairs(
        self,
        query_emb: Any,
        ref_emb: Any = None,
        threshold: float | None = None,
        return_tuples: bool = False,
    ) -> Any:
        """Boolean [n, m] of all pairs, or the list of those that match, as (query, reference)."""
        matches = self._near(as_numpy(self.distance(query_emb, ref_emb)), threshold)
        return list(zip(*np.nonzero(matches), strict=True)) if return_tuples else matches

    def is_match(self, x: Any, y: Any, threshold: float | None = None) -> Any:
        """Whether each row of `x` [n, d] matches that of `y` [n, d]: a bool for one, else [n]."""
        dtype = checks.compute_dtype(x)
        x, y = (checks.embeddings(one, "embeddings", dtype) for one in (x, y))
        found = self._near(as_numpy(self.distance.pairwise_distance(x, y)), threshold)
        return bool(found[0]) if found.size == 1 else found

    def _near(self, values: np.ndarray, threshold: float | None) -> np.ndarray:
        threshold = self.threshold if threshold is None else threshold
        if threshold is None:
            raise ValueError("Pass `threshold`, here or to MatchFinder.")
        return values >= threshold if self.distance.is_inverted else values <= threshold


class InferenceModel:
    """A model with its search: embeds what it is given, and finds neighbours and matches.

    Args:
        trunk: anything that can be called on a batch.
        embedder: called on what the trunk returns; None for nothing.
        match_finder: None for cosine similarities from 0.9.
        normalize_embeddings: whether embeddings are scaled to unit norm.
        knn_func: what searches; None for a `FaissKNN` that keeps its index.
        data_device: for PyTorch, where batches are moved to.
        dtype: what batches are cast to.
    """

    def __init__(
        self,
        trunk: Any,
        embedder: Any = None,
        match_finder: Any = None,
        normalize_embeddings: bool = True,
        knn_func: Any = None,
        data_device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.trunk, self.embedder = trunk, embedder
        self.match_finder = match_finder or MatchFinder(distances.CosineSimilarity(), threshold=0.9)
        self.knn_func = knn_func or FaissKNN(reset_before=False, reset_after=False)
        self.normalize_embeddings = bool(normalize_embeddings)
        self.data_device, self.dtype = data_device, dtype

    def get_embeddings(self, x: Any) -> Any:
        """The embeddings [n, d] of a batch, without gradients."""
        if isinstance(x, list) and x and all(ops.is_tensor(one) for one in x):
            x = ops.stack(x)
        found = embedding.embedded((self.trunk, self.embedder), x, self.data_device, self.dtype)
        return unit_rows(found) if self.normalize_embeddings else found

    def get_embeddings_from_tensor_or_dataset(self, inputs: Any, batch_size: int) -> Any:
        """The embeddings of a tensor, a list, or a dataset of tuples, a batch at a time."""
        if isinstance(inputs, list) and inputs and all(ops.is_tensor(one) for one in inputs):
            inputs = ops.stack(inputs)
        if ops.is_tensor(inputs) or isinstance(inputs, np.ndarray | list):
            starts = range(0, len(inputs), batch_size)
            parts = [self.get_embeddings(inputs[i : i + batch_size]) for i in starts]
        elif hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"):
            found = embedding.batches(inputs, batch_size, workers=0)
            parts = [self.get_embeddings(batch[0]) for batch in found]
        else:
            raise TypeError(
                "`inputs` must be a tensor, a list, or a dataset of tuples. Received: "
                f"{type(inputs).__name__}."
            )
        return ops.concatenate(parts)

    def train_knn(self, inputs: Any, batch_size: int = 64) -> None:
        """Embed `inputs`, and begin the search anew with them."""
        self.knn_func.train(self.get_embeddings_from_tensor_or_dataset(inputs, batch_size))

    def add_to_knn(self, inputs: Any, batch_size: int = 64) -> None:
        """Embed `inputs`, and add them to what is searched."""
        self.knn_func.add(self.get_embeddings_from_tensor_or_dataset(inputs, batch_size))

    def get_nearest_neighbors(self, query: Any, k: int) -> tuple[Any, Any]:
        """Distances and positions [n, k] of what is nearest to each query."""
        return self.knn_func(self.get_embeddings(query), k)

    def get_matches(
        self,
        query: Any,
        ref: Any = None,
        threshold: float | None = None,
        return_tuples: bool = False,
    ) -> Any:
        """Which queries match which references; see `MatchFinder.get_matching_pairs`."""
        x = self.get_embeddings(query)
        r = x if ref is None else self.get_embeddings(ref)
        return self.match_finder.get_matching_pairs(x, r, threshold, return_tuples)

    def is_match(self, x: Any, y: Any, threshold: float | None = None) -> Any:
        """Whether each of `x` matches that of `y`; see `MatchFinder.is_match`."""
        x, y = self.get_embeddings(x), self.get_embeddings(y)
        return self.match_finder.is_match(x, y, threshold)

    def save_knn_func(self, filename: Any) -> None:
        self.knn_func.save(filename)

    def load_knn_func(self, filename: Any) -> None:
        self.knn_func.load(filename)
