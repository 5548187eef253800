"""`tensorflow_similarity.classification_metrics`, under its names and with its numbers.

A query is matched with a class, if its neighbours are near enough. Each metric is computed from the
counts at rising distance thresholds, arrays [thresholds]: matched and right (tp), matched and wrong
(fp), not matched though the class is right (fn), not matched and the class is wrong (tn).
`kinfold.thresholds` sets a threshold by its false accept rate, with an interval on classes never
seen; prefer it.
"""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from kinfold.core.checks import Tensor
from kinfold.metrics.task import to_numpy


class ClassificationMetric(abc.ABC):
    """A rate of matches at each distance threshold.

    Args:
        name: under which its values are given.
        canonical_name: what kind of metric it is.
        maximize: whether more is better.
        increasing: whether it rises with the distance threshold.
    """

    def __init__(
        self,
        name: str = "",
        canonical_name: str = "",
        maximize: bool = True,
        increasing: bool = True,
    ) -> None:
        self.name, self.canonical_name = name, canonical_name
        self.maximize, self.increasing = maximize, increasing

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{self.canonical_name}:{self.name}"

    def get_config(self) -> dict[str, Any]:
        """Return what the metric is, in plain values."""
        return {
            "name": self.name,
            "canonical_name": self.canonical_name,
            "maximize": self.maximize,
            "increasing": self.increasing,
        }

    @abc.abstractmethod
    def compute(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor, count: int) -> np.ndarray:
        """Compute the metric at each threshold.

        Args:
            tp, fp, tn, fn: counts of queries, [thresholds].
            count: number of queries.

        Returns:
            float32 [thresholds]; 0 where there is nothing to divide by.
        """


class BinaryAccuracy(ClassificationMetric):
    """The share of all queries that are matched and right: tp / count."""

    def __init__(self, name: str = "binary_accuracy") -> None:
        super().__init__(name, "binary_accuracy")

    def compute(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor, count: int) -> np.ndarray:
        return _share(tp, count)


class Precision(ClassificationMetric):
    """The share of matched queries that are right: tp / (tp + fp).

    If nothing is matched at the first of several thresholds, the precision there is 1.
    """

    def __init__(self, name: str = "precision") -> None:
        super().__init__(name, "precision", increasing=False)

    def compute(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor, count: int) -> np.ndarray:
        values = _share(tp, _sum(tp, fp))
        if len(values) > 1 and _sum(tp, fp)[0] == 0:
            values[0] = 1.0
        return values


class Recall(ClassificationMetric):
    """The share of queries with the right class that are matched: tp / (tp + fn)."""

    def __init__(self, name: str = "recall") -> None:
        super().__init__(name, "recall")

    def compute(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor, count: int) -> np.ndarray:
        return _share(tp, _sum(tp, fn))


class F1Score(ClassificationMetric):
    """The harmonic mean of precision and recall."""

    def __init__(self, name: str = "f1") -> None:
        super().__init__(name, "f1_score")

    def compute(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor, count: int) -> np.ndarray:
        precision, recall = _share(tp, _sum(tp, fp)), _share(tp, _sum(tp, fn))
        return _share(2 * recall * precision, recall + precision)


class FalsePositiveRate(ClassificationMetric):
    """The share of queries with a wrong class that are matched: fp / (fp + tn)."""

    def __init__(self, name: str = "fpr") -> None:
        super().__init__(name, "false_positive_rate", maximize=False)

    def compute(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor, count: int) -> np.ndarray:
        return _share(fp, _sum(fp, tn))


class NegativePredictiveValue(ClassificationMetric):
    """The share of unmatched queries whose class is wrong: tn / (tn + fn)."""

    def __init__(self, name: str = "npv") -> None:
        super().__init__(name, "negative_predictive_value")

    def compute(self, tp: Tensor, fp: Tensor, tn: Tensor, fn: Tensor, count: int) -> np.ndarray:
        return _share(tn, _sum(tn, fn))


def _numbers(value: Any) -> np.ndarray:
    return np.atleast_1d(to_numpy(value)).astype(np.float32)


def _sum(a: Any, b: Any) -> np.ndarray:
    return _numbers(a) + _numbers(b)


def _share(part: Any, whole: Any) -> np.ndarray:
    part, whole = np.broadcast_arrays(_numbers(part), _numbers(whole))
    # In float32, as there: so that the same thresholds tie.
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


_ALIASES: dict[str, type[Any]] = {
    "recall": Recall,
    "precision": Precision,
    "f1": F1Score,
    "f1score": F1Score,
    "f1_score": F1Score,
    "binary_accuracy": BinaryAccuracy,
    "npv": NegativePredictiveValue,
    "negative_predictive_value": NegativePredictiveValue,
    "negative_predicitve_value": NegativePredictiveValue,  # as it is spelled there
    "fpr": FalsePositiveRate,
    "false_positive_rate": FalsePositiveRate,
}


def make_classification_metric(
    metric: str | ClassificationMetric, name: str = ""
) -> ClassificationMetric:
    """Find a metric by one of its names, in any case.

    Args:
        metric: a name, or a `ClassificationMetric`.
        name: what to call it; by default the name that it was asked for by.

    Raises:
        ValueError: the name is unknown.
        TypeError: it is something else.

    Example:

    >>> from kinfold.compat.tensorflow_similarity.classification_metrics import (
    ...     make_classification_metric,
    ... )
    >>> f1 = make_classification_metric("f1")
    >>> f1.compute(tp=[1, 2], fp=[1, 0], tn=[0, 0], fn=[0, 0], count=2)
    array([0.6666667, 1.       ], dtype=float32)
    """
    if isinstance(metric, str):
        if metric.lower() not in _ALIASES:
            raise ValueError(
                f"Unknown classification metric. Expected one of {sorted(_ALIASES)}. "
                f"Received: {metric!r}."
            )
        metric = _ALIASES[metric.lower()](name=metric.lower())
    if not isinstance(metric, ClassificationMetric):
        raise TypeError(
            f"A classification metric is a name or a ClassificationMetric. Received: {metric!r}."
        )
    if name:
        metric.name = name
    return metric
