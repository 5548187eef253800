"""`tensorflow_similarity.matchers`: the class that a query is matched with, by its neighbours."""

from __future__ import annotations

import abc
import math
from typing import Any

import numpy as np

from kinfold.core.checks import Tensor
from kinfold.metrics.task import to_numpy


class ClassificationMatch(abc.ABC):
    """A rule that makes one label and one distance of the neighbours of a query.

    Call `compile` with the distance thresholds and then `compute_count`; `tp`, `fp`, `tn` and `fn`
    are then counts of queries [thresholds], in the order of rising thresholds, and `count` is the
    number of queries.

    Args:
        name: of the rule.
        canonical_name: what kind of rule it is.
    """

    def __init__(self, name: str = "", canonical_name: str = "") -> None:
        self.name, self.canonical_name = name, canonical_name
        self.distance_thresholds: np.ndarray | None = None
        self._counts: dict[str, Any] = {}

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{self.canonical_name}:{self.name}"

    def get_config(self) -> dict[str, Any]:
        """Return what the rule is, in plain values."""
        limits = self.distance_thresholds
        return {
            "name": self.name,
            "canonical_name": self.canonical_name,
            "distance_thresholds": None if limits is None else limits.tolist(),
        }

    def compile(self, distance_thresholds: Tensor | None = None) -> None:
        """Set the distance thresholds, in any order; None for one that accepts every distance."""
        limits = [math.inf] if distance_thresholds is None else to_numpy(distance_thresholds)
        self.distance_thresholds = np.sort(np.atleast_1d(np.asarray(limits, np.float32)))

    @abc.abstractmethod
    def derive_match(
        self, lookup_labels: Tensor, lookup_distances: Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a label [queries, 1] and a distance [queries, 1].

        Args:
            lookup_labels: labels of the neighbours, integers [queries, k].
            lookup_distances: distances of the neighbours [queries, k].
        """

    def compute_count(
        self, query_labels: Tensor, lookup_labels: Tensor, lookup_distances: Tensor
    ) -> None:
        """Count how queries are matched at each threshold.

        Args:
            query_labels: class ids [queries] or [queries, 1].
            lookup_labels: labels of the neighbours, [queries, k].
            lookup_distances: distances of the neighbours, [queries, k].

        Raises:
            ValueError: shapes that do not fit.
            AttributeError: `compile` was not called.
        """
        if self.distance_thresholds is None:
            raise AttributeError(f"Call compile() of {type(self).__name__} before compute_count().")
        truth = to_numpy(query_labels).reshape(-1)
        labels, distances = to_numpy(lookup_labels), to_numpy(lookup_distances)
        if labels.ndim != 2 or labels.shape != distances.shape or len(labels) != len(truth):
            raise ValueError(
                "`lookup_labels` and `lookup_distances` must have shape [queries, k], with a row "
                f"for each of the {len(truth)} query labels. Received shapes {labels.shape} and "
                f"{distances.shape}."
            )
        label, distance = (np.asarray(one) for one in self.derive_match(labels, distances))
        right = label.reshape(len(truth), 1) == truth[:, None]
        near = distance.reshape(len(truth), 1).astype(np.float32) <= self.distance_thresholds
        self._counts = {
            "tp": (right & near).sum(0).astype(np.float64),
            "fn": (right & ~near).sum(0).astype(np.float64),
            "fp": (~right & near).sum(0).astype(np.float64),
            "tn": (~right & ~near).sum(0).astype(np.float64),
            "count": len(truth),
        }

    @property
    def tp(self) -> np.ndarray:
        """Queries that are matched with the right class."""
        return self._counted("tp")

    @property
    def fp(self) -> np.ndarray:
        """Queries that are matched with a wrong class."""
        return self._counted("fp")

    @property
    def tn(self) -> np.ndarray:
        """Queries whose class would be wrong, and that are too far to be matched."""
        return self._counted("tn")

    @property
    def fn(self) -> np.ndarray:
        """Queries whose class would be right, and that are too far to be matched."""
        return self._counted("fn")

    @property
    def count(self) -> int:
        """Number of queries."""
        return self._counted("count")

    def _counted(self, name: str) -> Any:
        if name not in self._counts:
            raise AttributeError("Call compute_count() before asking for the counts.")
        return self._counts[name]


class MatchNearest(ClassificationMatch):
    """The label and the distance of the nearest neighbour."""

    def __init__(self, name: str = "nearest", **kwargs: Any) -> None:
        super().__init__(name=name, **{"canonical_name": "match_nearest", **kwargs})

    def derive_match(
        self, lookup_labels: Tensor, lookup_distances: Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        return to_numpy(lookup_labels)[:, :1], to_numpy(lookup_distances)[:, :1]


class MatchMajorityVote(ClassificationMatch):
    """The most frequent label and the mean distance; of equally frequent labels the nearest one.

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.matchers import MatchMajorityVote
    >>> labels, distances = np.array([[1, 2, 2]]), np.array([[0.0, 0.5, 1.0]])
    >>> MatchMajorityVote().derive_match(labels, distances)
    (array([[2]]), array([[0.5]]))
    """

    def __init__(self, name: str = "majority_vote", **kwargs: Any) -> None:
        super().__init__(name=name, **{"canonical_name": "match_majority_vote", **kwargs})

    def derive_match(
        self, lookup_labels: Tensor, lookup_distances: Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        labels = to_numpy(lookup_labels)
        votes = (labels[:, :, None] == labels[:, None, :]).sum(2)
        label = np.take_along_axis(labels, votes.argmax(1)[:, None], axis=1)
        return label, to_numpy(lookup_distances).mean(1, keepdims=True)


_ALIASES: dict[str, type[Any]] = {
    "match_nearest": MatchNearest,
    "match_majority_vote": MatchMajorityVote,
}


def make_classification_matcher(matcher: str | ClassificationMatch) -> ClassificationMatch:
    """Find a rule by its name, "match_nearest" or "match_majority_vote".

    Raises:
        ValueError: the name is unknown.
        TypeError: it is something else.
    """
    if isinstance(matcher, str):
        if matcher.lower() not in _ALIASES:
            raise ValueError(
                f"Unknown matcher. Expected one of {sorted(_ALIASES)}. Received: {matcher!r}."
            )
        return _ALIASES[matcher.lower()]()
    if not isinstance(matcher, ClassificationMatch):
        raise TypeError(f"A matcher is a name or a ClassificationMatch. Received: {matcher!r}.")
    return matcher
