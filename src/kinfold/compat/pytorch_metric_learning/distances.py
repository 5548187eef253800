"""`pytorch_metric_learning.distances`, under its names: matrices of distances or similarities.

`LpDistance(normalize_embeddings=True, p=2, power=1)(query, ref)` gives [n, m]. Losses take these
objects, and the peer's own, in `distance=`; they compare a block of anchors at a time.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold import distances
from kinfold.compat.pytorch_metric_learning import tuples
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32, unit_rows


class BaseDistance(distances.Distance):
    """What the peer's distances share.

    Args:
        normalize_embeddings: whether rows are scaled to unit p-norm first.
        p: which norm.
        power: what each distance is raised to.
        is_inverted: whether larger means closer.
        collect_stats: whether `initial_avg_query_norm`, `final_avg_query_norm` and the same of
            `ref` are kept of each call: mean norms before and after normalisation.
    """

    def __init__(
        self,
        normalize_embeddings: bool = True,
        p: float = 2,
        power: float = 1,
        is_inverted: bool = False,
        collect_stats: bool = False,
    ) -> None:
        self.collect_stats = bool(collect_stats)
        self.normalize_embeddings, self.is_inverted = bool(normalize_embeddings), bool(is_inverted)
        self.p, self.power = checks.number(p, "p"), checks.number(power, "power")
        self.name, self.similarity = type(self).__name__, self.is_inverted

    def __call__(self, query_emb: Any, ref_emb: Any = None) -> Tensor:
        """Distances of every row of `query_emb` [n, d] to every row of `ref_emb` [m, d]: [n, m]."""
        query = checks.embeddings(query_emb, "query_emb", checks.compute_dtype(query_emb))
        ref = query
        if ref_emb is not None:
            ref = checks.embeddings(ref_emb, "ref_emb", checks.compute_dtype(query_emb))
        self.record(query, ref)
        return self.pairwise(query, ref)

    def pairwise(self, x: Tensor, r: Tensor) -> Tensor:
        return self._raised(self.compute_mat(self.maybe_normalize(x), self.maybe_normalize(r)))

    def paired(self, x: Tensor, r: Tensor) -> Tensor:
        return self._raised(
            self.pairwise_distance(self.maybe_normalize(x), self.maybe_normalize(r))
        )

    def compute_mat(self, x: Tensor, r: Tensor) -> Tensor:
        """The matrix [n, m], before its power, of rows as they are."""
        raise NotImplementedError

    def pairwise_distance(self, x: Tensor, r: Tensor) -> Tensor:
        """The distance of each row to the one beside it [n], before its power."""
        raise NotImplementedError

    def margin(self, x: Any, y: Any) -> Any:
        """By how much `x` is further than `y`."""
        return y - x if self.is_inverted else x - y

    def maybe_normalize(self, x: Tensor) -> Tensor:
        if not self.normalize_embeddings:
            return x
        if self.p == 2:
            return unit_rows(x)
        wide = at_least_float32(x)
        total = ops.sum(ops.abs(wide) ** self.p, axis=-1, keepdims=True)
        unit = wide / ops.where(total > 0, total, ops.ones_like(total)) ** (1 / self.p)
        return ops.cast(unit, keras.backend.standardize_dtype(x.dtype))

    def record(self, query: Tensor, ref: Tensor) -> None:
        """Keep the mean p-norms of rows, as they are and as they are compared, if it is to."""
        if not self.collect_stats:
            return
        for name, rows in (("query", query), ("ref", ref)):
            for when, these in (("initial", rows), ("final", self.maybe_normalize(rows))):
                norm = float(np.linalg.norm(tuples.numbers(these), ord=self.p, axis=1).mean())
                setattr(self, f"{when}_avg_{name}_norm", norm)

    def _raised(self, mat: Tensor) -> Tensor:
        return mat if self.power == 1 else mat**self.power


class LpDistance(BaseDistance):
    """(sum_k |x_k - r_k|^p)^(1/p), to a power; from one matrix product where p is 2."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.is_inverted:
            raise ValueError("LpDistance is a distance: is_inverted must be False.")

    def pairwise(self, x: Tensor, r: Tensor) -> Tensor:
        if (self.p, self.power) == (2, 2):  # without a root in between
            squared = distances.get("squared_euclidean")
            return squared.pairwise(self.maybe_normalize(x), self.maybe_normalize(r))
        return super().pairwise(x, r)

    def compute_mat(self, x: Tensor, r: Tensor) -> Tensor:
        if self.p in (1, 2):
            return distances.get("manhattan" if self.p == 1 else "euclidean").pairwise(x, r)
        return self._of_gaps(ops.expand_dims(x, 1) - ops.expand_dims(r, 0))

    def pairwise_distance(self, x: Tensor, r: Tensor) -> Tensor:
        return self._of_gaps(x - r)

    def _of_gaps(self, gaps: Tensor) -> Tensor:
        total = ops.sum(ops.abs(gaps) ** self.p, axis=-1)
        some = total > 0
        root = ops.where(some, total, ops.ones_like(total)) ** (1 / self.p)
        return ops.where(some, root, ops.zeros_like(total))

    def numbers_a_pair(self, dimension: int) -> int:
        return 1 if self.p == 2 else dimension


class DotProductSimilarity(BaseDistance):
    """x.r, larger is closer."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "is_inverted": True})

    def compute_mat(self, x: Tensor, r: Tensor) -> Tensor:
        return distances.get("inner_product").pairwise(x, r)

    def pairwise_distance(self, x: Tensor, r: Tensor) -> Tensor:
        return distances.get("inner_product").paired(x, r)


class CosineSimilarity(DotProductSimilarity):
    """x.r of rows of unit norm."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "normalize_embeddings": True})


class SNRDistance(BaseDistance):
    """Var(x - r) / Var(x): noise to signal, which is not symmetric."""

    def compute_mat(self, x: Tensor, r: Tensor) -> Tensor:
        return distances.get("snr").pairwise(x, r)

    def pairwise_distance(self, x: Tensor, r: Tensor) -> Tensor:
        return distances.get("snr").paired(x, r)


class BatchedDistance:
    """Calls `iter_fn(mat, start, end)` with the distances of `batch_size` queries at a time."""

    def __init__(self, distance: BaseDistance, iter_fn: Any = None, batch_size: int = 32) -> None:
        self.distance, self.iter_fn = distance, iter_fn
        self.batch_size = checks.count(batch_size, "batch_size")

    def __call__(self, query_emb: Any, ref_emb: Any = None) -> None:
        ref_emb = query_emb if ref_emb is None else ref_emb
        for start in range(0, len(query_emb), self.batch_size):
            end = start + self.batch_size
            self.iter_fn(self.distance(query_emb[start:end], ref_emb), start, end)

    def __getattr__(self, name: str) -> Any:
        if name == "distance":  # while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self.distance, name)


class _Given(BaseDistance):
    """A distance of somebody's own, with the peer's methods."""

    def __init__(self, given: Any) -> None:
        super().__init__(given.normalize_embeddings, given.p, given.power, given.is_inverted)
        self.given = given

    def compute_mat(self, x: Tensor, r: Tensor) -> Tensor:
        return self.given.compute_mat(x, r)

    def pairwise_distance(self, x: Tensor, r: Tensor) -> Tensor:
        return self.given.pairwise_distance(x, r)


def found(distance: Any) -> BaseDistance:
    """Return `distance` as one of these: ours, the peer's own object, or one with its methods."""
    while type(distance).__name__ == "BatchedDistance":  # a loss takes blocks as it is
        distance = distance.distance
    if isinstance(distance, BaseDistance):
        return distance
    ours = (LpDistance, CosineSimilarity, DotProductSimilarity, SNRDistance)
    kinds: dict[str, Any] = {kind.__name__: kind for kind in ours}
    of_peer = type(distance).__module__.startswith("pytorch_metric_learning.")
    if of_peer and type(distance).__name__ in kinds:
        same = {name: getattr(distance, name) for name in ("normalize_embeddings", "p", "power")}
        collects = getattr(distance, "collect_stats", False)  # what not all versions have
        return kinds[type(distance).__name__](collect_stats=collects, **same)
    if hasattr(distance, "compute_mat") and hasattr(distance, "is_inverted"):
        return _Given(distance)
    raise TypeError(
        "`distance` must be one of kinfold.compat.pytorch_metric_learning.distances, or an object "
        f"with their methods. Received: distance={distance!r}."
    )
