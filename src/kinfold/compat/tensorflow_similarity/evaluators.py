"""`tensorflow_similarity.evaluators`: lookups measured against labels, and calibrated by them."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kinfold.compat.tensorflow_similarity.classification_metrics import ClassificationMetric
from kinfold.compat.tensorflow_similarity.matchers import (
    ClassificationMatch,
    make_classification_matcher,
)
from kinfold.compat.tensorflow_similarity.retrieval_metrics import RetrievalMetric
from kinfold.compat.tensorflow_similarity.types import CalibrationResults, Lookup
from kinfold.compat.tensorflow_similarity.utils import (
    unpack_lookup_distances,
    unpack_lookup_labels,
)
from kinfold.core.checks import Tensor
from kinfold.metrics.task import to_numpy

Lookups = Sequence[Sequence[Lookup]]


class Evaluator(abc.ABC):
    """What an index evaluates and calibrates lookups with; subclass it for one of your own."""

    @abc.abstractmethod
    def evaluate_retrieval(
        self,
        target_labels: Sequence[int] | Tensor,
        lookups: Lookups,
        retrieval_metrics: Sequence[RetrievalMetric],
        distance_rounding: int = 8,
    ) -> dict[str, Any]:
        """Return the value of each metric, by its name.

        Args:
            target_labels: class ids of the queries, [queries].
            lookups: the neighbours of each query, as `Indexer.batch_lookup` gives them.
            retrieval_metrics: what to compute.
            distance_rounding: digits that a distance is rounded to.
        """

    @abc.abstractmethod
    def evaluate_classification(
        self,
        query_labels: Tensor,
        lookup_labels: Tensor,
        lookup_distances: Tensor,
        distance_thresholds: Tensor,
        metrics: Sequence[ClassificationMetric],
        matcher: str | ClassificationMatch,
        distance_rounding: int = 8,
        verbose: int = 1,
    ) -> dict[str, np.ndarray]:
        """Return the values of each metric [thresholds], by its name, and the "distance".

        Args:
            query_labels: class ids [queries].
            lookup_labels: labels of the neighbours, integers [queries, k].
            lookup_distances: distances of the neighbours [queries, k].
            distance_thresholds: distances to match at, [thresholds].
            metrics: what to compute.
            matcher: how the neighbours of a query are made one match.
            distance_rounding: digits that distances are compared by.
            verbose: 1 may print progress.
        """

    @abc.abstractmethod
    def calibrate(
        self,
        target_labels: Sequence[int] | Tensor,
        lookups: Lookups,
        thresholds_targets: Mapping[str, float],
        calibration_metric: ClassificationMetric,
        matcher: str | ClassificationMatch,
        extra_metrics: Sequence[ClassificationMetric] = (),
        distance_rounding: int = 8,
        metric_rounding: int = 6,
        verbose: int = 1,
    ) -> CalibrationResults:
        """Find the distances up to which a query is to be matched.

        Args:
            target_labels: class ids of the queries, [queries].
            lookups: the neighbours of each query.
            thresholds_targets: for each name of a cutpoint the value of the metric to reach.
            calibration_metric: the metric that decides.
            matcher: how the neighbours of a query are made one match.
            extra_metrics: more metrics to tell at each distance.
            distance_rounding: digits that a distance is rounded to.
            metric_rounding: digits that metrics are compared by.
            verbose: 1 may print progress.
        """


class MemoryEvaluator(Evaluator):
    """The evaluator of lookups in memory, in NumPy.

    Every distance of a neighbour is tried as a threshold. The cutpoint "optimal" is at the largest
    of those with the best value of the metric. A target's cutpoint is at the first distance that
    reaches it, or at the last for a metric that falls with the distance; a target that none reaches
    has no cutpoint.

    `metric_rounding`, `verbose`, and the `distance_rounding` of classifications are for evaluators
    of your own: as there, this one compares exact values. It prints nothing.
    """

    def evaluate_retrieval(
        self,
        target_labels: Sequence[int] | Tensor,
        lookups: Lookups,
        retrieval_metrics: Sequence[RetrievalMetric],
        distance_rounding: int = 8,
    ) -> dict[str, Any]:
        query_labels = to_numpy(target_labels).reshape(-1)
        labels = unpack_lookup_labels(lookups)
        distances = unpack_lookup_distances(lookups, distance_rounding)
        for metric in retrieval_metrics:
            if labels.shape[1] < metric.k:
                raise ValueError(
                    f"{metric.name} needs {metric.k} neighbours of each query. Received "
                    f"{labels.shape[1]}: the index holds fewer, or fewer were looked up."
                )
        mask = labels == query_labels[:, None]
        return {
            metric.name: metric.compute(
                query_labels=query_labels,
                lookup_labels=labels,
                lookup_distances=distances,
                match_mask=mask,
            )
            for metric in retrieval_metrics
        }

    def evaluate_classification(
        self,
        query_labels: Tensor,
        lookup_labels: Tensor,
        lookup_distances: Tensor,
        distance_thresholds: Tensor,
        metrics: Sequence[ClassificationMetric],
        matcher: str | ClassificationMatch,
        distance_rounding: int = 8,
        verbose: int = 1,
    ) -> dict[str, np.ndarray]:
        matcher = make_classification_matcher(matcher)
        matcher.compile(distance_thresholds)
        matcher.compute_count(query_labels, lookup_labels, lookup_distances)
        assert matcher.distance_thresholds is not None
        counts = {name: getattr(matcher, name) for name in ("tp", "fp", "tn", "fn", "count")}
        values = {metric.name: metric.compute(**counts) for metric in metrics}
        return {"distance": matcher.distance_thresholds, **values}

    def calibrate(
        self,
        target_labels: Sequence[int] | Tensor,
        lookups: Lookups,
        thresholds_targets: Mapping[str, float],
        calibration_metric: ClassificationMetric,
        matcher: str | ClassificationMatch,
        extra_metrics: Sequence[ClassificationMetric] = (),
        distance_rounding: int = 8,
        metric_rounding: int = 6,
        verbose: int = 1,
    ) -> CalibrationResults:
        if not len(lookups):
            raise ValueError("Calibrating needs queries with neighbours. Received no lookups.")
        distances = unpack_lookup_distances(lookups, distance_rounding)
        results = self.evaluate_classification(
            query_labels=to_numpy(target_labels).reshape(-1),
            lookup_labels=unpack_lookup_labels(lookups),
            lookup_distances=distances,
            distance_thresholds=np.unique(distances),
            metrics=[*extra_metrics, calibration_metric],
            matcher=matcher,
            distance_rounding=distance_rounding,
            verbose=verbose,
        )
        values = results[calibration_metric.name]
        best = values if calibration_metric.maximize else -values
        cutpoints = {"optimal": int(np.flatnonzero(best == best.max())[-1])}
        for name, target in thresholds_targets.items():
            reached = np.flatnonzero(values >= target)
            if len(reached):
                cutpoints[name] = int(reached[0 if calibration_metric.increasing else -1])
        told: dict[str, dict[str, str | float]] = {
            name: {
                "name": name,
                "value": float(values[at]),
                **{metric: float(column[at]) for metric, column in results.items()},
            }
            for name, at in cutpoints.items()
        }
        return CalibrationResults(told, {**results, "value": values})
