"""What an `Indexer` measures by its lookups: retrieval, classification, thresholds and matches."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kinfold.compat.tensorflow_similarity.classification_metrics import (
    ClassificationMetric,
    F1Score,
    make_classification_metric,
)
from kinfold.compat.tensorflow_similarity.evaluators import Evaluator
from kinfold.compat.tensorflow_similarity.matchers import (
    ClassificationMatch,
    make_classification_matcher,
)
from kinfold.compat.tensorflow_similarity.retrieval_metrics import RetrievalMetric
from kinfold.compat.tensorflow_similarity.types import CalibrationResults, Lookup
from kinfold.compat.tensorflow_similarity.utils import (
    table,
    unpack_lookup_distances,
    unpack_lookup_labels,
)
from kinfold.core.checks import Tensor
from kinfold.metrics.task import to_numpy


class Measured(abc.ABC):
    """An index whose lookups are measured against labels."""

    evaluator: Evaluator

    def _uncalibrated(self) -> None:
        self.is_calibrated = False
        self.calibration_metric: ClassificationMetric = F1Score()
        self.cutpoints: Mapping[str, Mapping[str, str | float]] = {}
        self.calibration_thresholds: Mapping[str, np.ndarray] = {}

    @abc.abstractmethod
    def batch_lookup(self, predictions: Any, k: int = 5, verbose: int = 1) -> list[list[Lookup]]:
        """Find the k nearest of each of n embeddings [n, d], nearest first."""

    def evaluate_retrieval(
        self,
        predictions: Tensor,
        target_labels: Sequence[int] | Tensor,
        retrieval_metrics: Sequence[RetrievalMetric],
        verbose: int = 1,
    ) -> dict[str, Any]:
        """Measure how well queries find their own class.

        Args:
            predictions: embeddings of the queries, [n, d].
            target_labels: their class ids, [n].
            retrieval_metrics: what to compute.
            verbose: as of `batch_lookup`.

        Returns:
            The value of each metric, by its name.
        """
        for metric in retrieval_metrics:
            if not isinstance(metric, RetrievalMetric):
                raise ValueError(
                    "`retrieval_metrics` must be metrics with their k, such as RecallAtK(k=1). "
                    f"Received: {metric!r}."
                )
        k = 1 + max([1, *(metric.k for metric in retrieval_metrics)])
        lookups = self.batch_lookup(predictions, k, verbose)
        return self.evaluator.evaluate_retrieval(target_labels, lookups, retrieval_metrics)

    def evaluate_classification(
        self,
        predictions: Tensor,
        target_labels: Sequence[int] | Tensor,
        distance_thresholds: Sequence[float] | Tensor,
        metrics: Sequence[str | ClassificationMetric] = ("f1",),
        matcher: str | ClassificationMatch = "match_nearest",
        k: int = 1,
        verbose: int = 1,
    ) -> dict[str, np.ndarray]:
        """Measure how well queries are matched at distance thresholds.

        Args:
            predictions: embeddings of the queries, [n, d].
            target_labels: their class ids, [n].
            distance_thresholds: distances to match at, [thresholds].
            metrics: names or metrics.
            matcher: how the neighbours of a query are made one match.
            k: how many neighbours that takes.
            verbose: as of `batch_lookup`.

        Returns:
            The values of each metric, by its name, and the "distance", sorted.
        """
        lookups = self.batch_lookup(predictions, k, verbose)
        return self.evaluator.evaluate_classification(
            query_labels=to_numpy(target_labels).reshape(-1),
            lookup_labels=unpack_lookup_labels(lookups),
            lookup_distances=unpack_lookup_distances(lookups),
            distance_thresholds=np.asarray(to_numpy(distance_thresholds), np.float32),
            metrics=[make_classification_metric(metric) for metric in metrics],
            matcher=matcher,
            verbose=verbose,
        )

    def calibrate(
        self,
        predictions: Tensor,
        target_labels: Sequence[int] | Tensor,
        thresholds_targets: Mapping[str, float],
        calibration_metric: str | ClassificationMetric = "f1_score",
        k: int = 1,
        matcher: str | ClassificationMatch = "match_nearest",
        extra_metrics: Sequence[str | ClassificationMetric] = ("precision", "recall"),
        rounding: int = 2,
        verbose: int = 1,
    ) -> CalibrationResults:
        """Find the distances up to which a query is matched, and keep them for `match`.

        Args:
            predictions: embeddings of queries, [n, d].
            target_labels: their class ids, [n].
            thresholds_targets: for each name of a cutpoint the value of the metric to reach.
            calibration_metric: the metric that decides.
            k: how many neighbours a match takes.
            matcher: how they are made one match.
            extra_metrics: more metrics to tell.
            rounding: digits, for an evaluator of your own.
            verbose: 1 prints the cutpoints.
        """
        metric = make_classification_metric(calibration_metric)
        found = self.evaluator.calibrate(
            target_labels=target_labels,
            lookups=self.batch_lookup(predictions, k, verbose),
            thresholds_targets=thresholds_targets,
            calibration_metric=metric,
            matcher=matcher,
            extra_metrics=[make_classification_metric(one) for one in extra_metrics],
            metric_rounding=rounding,
            verbose=verbose,
        )
        if verbose:
            headers = list(
                dict.fromkeys(["name", "value", "distance", *found.cutpoints["optimal"]])
            )
            print(table([[one[x] for x in headers] for one in found.cutpoints.values()], headers))
        self.is_calibrated, self.calibration_metric = True, metric
        self.cutpoints, self.calibration_thresholds = found.cutpoints, found.thresholds
        return found

    def match(
        self,
        predictions: Tensor,
        no_match_label: int = -1,
        k: int = 1,
        matcher: str | ClassificationMatch = "match_nearest",
        verbose: int = 1,
    ) -> dict[str, list[int]]:
        """Match queries with classes at each cutpoint of `calibrate`.

        Args:
            predictions: embeddings of queries, [n, d].
            no_match_label: the label of a query that is too far from all.
            k: how many neighbours a match takes.
            matcher: how they are made one match.
            verbose: as of `batch_lookup`.

        Returns:
            For each name of a cutpoint n labels.

        Raises:
            ValueError: the index is not calibrated.
        """
        if not self.is_calibrated:
            raise ValueError("Matching needs the thresholds of calibrate(), which was not called.")
        lookups = self.batch_lookup(predictions, k, verbose)
        labels, distances = make_classification_matcher(matcher).derive_match(
            unpack_lookup_labels(lookups), unpack_lookup_distances(lookups)
        )
        labels, distances = np.asarray(labels).reshape(-1), np.asarray(distances).reshape(-1)
        return {
            name: np.where(
                distances <= np.float32(cutpoint["distance"]), labels, no_match_label
            ).tolist()
            for name, cutpoint in self.cutpoints.items()
        }

    def get_calibration_metric(self) -> ClassificationMetric:
        """Return the metric that decided the thresholds."""
        return self.calibration_metric
