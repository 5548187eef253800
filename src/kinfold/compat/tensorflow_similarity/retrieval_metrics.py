"""`tensorflow_similarity.retrieval_metrics`, under its names and with its numbers.

Each is computed from what a lookup found, in NumPy. `kinfold.retrieval_metrics` ranks the whole
gallery, treats ties fairly and leaves out queries that have nothing to find; prefer it.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.metrics.task import to_numpy


class RetrievalMetric(abc.ABC):
    """A number that tells how well the neighbours of queries match their labels.

    Args:
        name: of the metric; "@k" is added to it.
        canonical_name: what kind of metric it is.
        k: how many neighbours count.
        distance_threshold: a neighbour that is further does not match. `BNDCG` alone uses it.
        average: "micro" for the mean over queries, "macro" for the mean over the means of classes.
        drop_closest_lookup: leave out the nearest neighbour, where queries are in the index.

    Raises:
        ValueError: `k` is not a whole number of at least 1, or the average is unknown.
    """

    def __init__(
        self,
        name: str = "",
        canonical_name: str = "",
        k: int = 5,
        distance_threshold: float = math.inf,
        average: str = "micro",
        drop_closest_lookup: bool = False,
    ) -> None:
        self._name, self.canonical_name = name, canonical_name
        self.k = checks.count(k, "k")
        self.distance_threshold = distance_threshold
        self.average = checks.choice(average, "average", ("micro", "macro"))
        self.drop_closest_lookup = drop_closest_lookup

    @property
    def name(self) -> str:
        """The name with its `k`, and with the threshold where there is one."""
        if self.distance_threshold and self.distance_threshold != math.inf:
            return f"{self._name}@{self.k} : distance_threshold@{self.distance_threshold}"
        return f"{self._name}@{self.k}"

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{self.canonical_name} : {self.name}"

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this metric again."""
        return {
            "name": self._name,
            "canonical_name": self.canonical_name,
            "k": self.k,
            "distance_threshold": float(self.distance_threshold),
            "average": self.average,
            "drop_closest_lookup": self.drop_closest_lookup,
        }

    @abc.abstractmethod
    def compute(self, *, query_labels: Tensor, match_mask: Tensor, **kwargs: Any) -> np.float64:
        """Compute the metric.

        Args:
            query_labels: class ids [queries].
            match_mask: boolean [queries, neighbours], whether a neighbour is of the query's class.
            **kwargs: `lookup_labels` and `lookup_distances`, [queries, neighbours].

        Raises:
            ValueError: fewer neighbours than the metric looks at, or shapes that do not fit.
        """

    def _checked(
        self, query_labels: Tensor, match_mask: Tensor, needed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        labels, mask = to_numpy(query_labels).reshape(-1), to_numpy(match_mask).astype(bool)
        if mask.ndim != 2 or len(mask) != len(labels):
            raise ValueError(
                "`match_mask` must have a row for each query. Received shapes "
                f"{mask.shape} and {labels.shape} of `query_labels`."
            )
        if mask.shape[1] < needed:
            raise ValueError(
                f"{self.name} looks at {needed} neighbours of each query. Received "
                f"{mask.shape[1]}: look up more, or take a smaller k."
            )
        return labels, mask

    def _averaged(self, values: Any, labels: np.ndarray) -> np.float64:
        if self.average == "micro":
            return np.float64(values.mean())
        classes = np.unique(labels, return_inverse=True)[1]
        return np.float64((np.bincount(classes, values) / np.bincount(classes)).mean())


class RecallAtK(RetrievalMetric):
    """The share of queries that have a match among their first k neighbours.

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.retrieval_metrics import RecallAtK
    >>> mask = np.array([[False, True], [False, False]])
    >>> float(RecallAtK(k=2).compute(query_labels=np.array([0, 1]), match_mask=mask))
    0.5
    """

    def __init__(self, name: str = "recall", **kwargs: Any) -> None:
        super().__init__(name=name, **{"canonical_name": "recall@k", **kwargs})

    def compute(self, *, query_labels: Tensor, match_mask: Tensor, **kwargs: Any) -> np.float64:
        labels, mask = self._checked(query_labels, match_mask, self.k)
        first = int(self.drop_closest_lookup)
        return self._averaged(mask[:, first : first + self.k].any(1).astype(np.float64), labels)


class PrecisionAtK(RetrievalMetric):
    """The share of the first k neighbours that match, or of as many as the class has examples.

    Args:
        r: for each class id the number of its examples in the index, what the matches are divided
            by; None for k.
        clip_at_r: True looks at the first `r` neighbours alone: R-precision.
        name: of the metric.
        **kwargs: those of `RetrievalMetric`. With `drop_closest_lookup` the k neighbours include
            the one that is left out.
    """

    def __init__(
        self,
        r: Mapping[int, int] | None = None,
        clip_at_r: bool = False,
        name: str = "precision",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **{"canonical_name": "precision@k", **kwargs})
        self.r, self.clip_at_r = r, clip_at_r

    @property
    def name(self) -> str:
        """The name, with its `k` unless the number of examples takes its place."""
        return self._name if self.clip_at_r else super().name

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "r": self.r, "clip_at_r": self.clip_at_r}

    def compute(self, *, query_labels: Tensor, match_mask: Tensor, **kwargs: Any) -> np.float64:
        labels, mask = self._checked(query_labels, match_mask, self.k)
        less = int(self.drop_closest_lookup)
        matches = self._matches(mask[:, less : self.k].astype(np.float64))
        counts = np.array(
            [self.k if self.r is None else self.r.get(int(one), 0) for one in labels], np.int64
        )
        counts = np.maximum(0, counts - less)
        if self.clip_at_r:
            matches = matches * (np.arange(matches.shape[1]) < counts[:, None])
        found = matches.sum(1)
        values = np.divide(found, counts, out=np.zeros_like(found), where=counts > 0)
        return self._averaged(values, labels)

    def _matches(self, matches: np.ndarray) -> np.ndarray:
        return matches


class MapAtK(PrecisionAtK):
    """Mean average precision: the mean over matches of the precision at their ranks.

    Per query sum_{i <= k} P(i) rel(i) / R, with P(i) the share of matches among the first i
    neighbours and R the number that `r` gives for the query's class, or k. With `clip_at_r` it is
    MAP@R.

    Args:
        r, clip_at_r, name: as for `PrecisionAtK`.
        **kwargs: those of `RetrievalMetric`; the average is "micro".

    Raises:
        ValueError: another average.
    """

    def __init__(
        self,
        r: Mapping[int, int] | None = None,
        clip_at_r: bool = False,
        name: str = "map",
        **kwargs: Any,
    ) -> None:
        if kwargs.get("average", "micro") != "micro":
            raise ValueError(
                'MapAtK averages over queries: pass average="micro". Received: '
                f"average={kwargs['average']!r}."
            )
        super().__init__(r, clip_at_r, name, **{"canonical_name": "map@k", **kwargs})

    def _matches(self, matches: np.ndarray) -> np.ndarray:
        return matches * matches.cumsum(1) / np.arange(1, matches.shape[1] + 1)


class BNDCG(RetrievalMetric):
    """Normalised discounted cumulative gain, a neighbour being relevant or not.

    Per query sum_{i <= k} rel(i) / log2(1 + i), over the same with all matches first. A neighbour
    beyond the distance threshold is no match.
    """

    def __init__(self, name: str = "ndcg", **kwargs: Any) -> None:
        super().__init__(name=name, **{"canonical_name": "ndcg@k", **kwargs})

    def compute(self, *, query_labels: Tensor, match_mask: Tensor, **kwargs: Any) -> np.float64:
        first = int(self.drop_closest_lookup)
        labels, mask = self._checked(query_labels, match_mask, first + self.k)
        distances = to_numpy(kwargs["lookup_distances"])
        if distances.shape != mask.shape:
            raise ValueError(
                "`lookup_distances` must have the shape of `match_mask`. Received shapes "
                f"{distances.shape} and {mask.shape}."
            )
        near = distances <= np.asarray(self.distance_threshold, distances.dtype)
        matches = (mask & near)[:, first : first + self.k].astype(np.float64)
        weights = 1 / np.log2(np.arange(2, self.k + 2))
        gain, ideal = matches @ weights, np.sort(matches, 1)[:, ::-1] @ weights
        return self._averaged(np.divide(gain, ideal, out=0 * gain, where=ideal > 0), labels)


_ALIASES: dict[str, type[RetrievalMetric]] = {
    "recall": RecallAtK,
    "precision": PrecisionAtK,
    "map": MapAtK,
    "ndcg": BNDCG,
    "bndcg": BNDCG,
}


def make_retrieval_metric(metric: str | RetrievalMetric, k: int = 5) -> RetrievalMetric:
    """Find a metric by its name, with or without its k: "recall", "map@10".

    Raises:
        ValueError: the name is unknown.
        TypeError: it is something else.
    """
    if isinstance(metric, RetrievalMetric):
        return metric
    if not isinstance(metric, str):
        raise TypeError(
            "A retrieval metric is a RetrievalMetric or a name such as 'recall@5'. Received: "
            f"{metric!r}."
        )
    name, _, number = metric.lower().partition("@")
    if name not in _ALIASES or (number and not number.isdigit()):
        raise ValueError(
            f"Unknown retrieval metric. Expected one of {sorted(_ALIASES)}, as in 'recall@5'. "
            f"Received: {metric!r}."
        )
    return _ALIASES[name](k=int(number) if number else k)
