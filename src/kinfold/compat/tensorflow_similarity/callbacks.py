"""`tensorflow_similarity.callbacks`: an index of held-out examples, measured after each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kinfold.compat.tensorflow_similarity.classification_metrics import (
    ClassificationMetric,
    make_classification_metric,
)
from kinfold.compat.tensorflow_similarity.evaluators import MemoryEvaluator
from kinfold.compat.tensorflow_similarity.indexer import Indexer
from kinfold.compat.tensorflow_similarity.matchers import ClassificationMatch
from kinfold.compat.tensorflow_similarity.retrieval_metrics import RetrievalMetric
from kinfold.compat.tensorflow_similarity.utils import (
    unpack_lookup_distances,
    unpack_lookup_labels,
)
from kinfold.core.checks import Tensor
from kinfold.metrics.task import to_numpy


class EvalCallback(keras.callbacks.Callback):
    """Measure how well queries find their class among targets, and write it into the logs.

    After each epoch the model embeds both with `predict`, and the metrics go into the logs by their
    names. The index of the model stays as it is; in the peer it is emptied. Any Keras model will
    do. `kinfold.callbacks.RetrievalEvaluation` ranks all targets, treats ties fairly, and serves
    several processes; prefer it.

    Args:
        queries: n held-out examples, an array.
        query_labels: their class ids [n].
        targets: m examples to find, an array.
        target_labels: their class ids [m].
        distance: one of the names of `distances.get`, or a `Distance`.
        metrics: of classification, names or metrics.
        tb_logdir: None; `keras.callbacks.TensorBoard` writes what is in the logs.
        k: how many neighbours a match takes.
        matcher: how they are made one match.
        distance_thresholds: the distance up to which queries are matched, [1]; None for any.
        known_classes: class ids that the model is trained on. The metrics are then told apart for
            queries of these and of other classes, as "_known_classes" and "_unknown_classes".
        retrieval_metrics: metrics of retrieval, or None.

    Raises:
        ValueError: a `tb_logdir`, several thresholds, other numbers of examples and labels, or
            queries of known classes or of unknown ones alone.
    """

    def __init__(
        self,
        queries: Any,
        query_labels: Sequence[int],
        targets: Any,
        target_labels: Sequence[int],
        distance: Any = "cosine",
        metrics: Sequence[str | ClassificationMetric] = ("binary_accuracy",),
        tb_logdir: str | None = None,
        k: int = 1,
        matcher: str | ClassificationMatch = "match_nearest",
        distance_thresholds: Tensor | None = None,
        known_classes: Sequence[int] | None = None,
        retrieval_metrics: Sequence[RetrievalMetric] | None = None,
    ) -> None:
        super().__init__()
        if tb_logdir is not None:
            raise ValueError(
                "`tb_logdir` has no use: list keras.callbacks.TensorBoard after this callback, "
                f"which writes what is in the logs. Received: tb_logdir={tb_logdir!r}."
            )
        limits = [np.inf] if distance_thresholds is None else to_numpy(distance_thresholds)
        self.distance_thresholds = np.atleast_1d(np.asarray(limits, np.float32))
        if len(self.distance_thresholds) != 1:
            raise ValueError(
                "The logs hold one number for each metric: pass one threshold. Received: "
                f"distance_thresholds={distance_thresholds!r}."
            )
        self.targets, self.target_labels = _pair(targets, target_labels, "targets")
        queries, labels = _pair(queries, query_labels, "queries")
        self.distance, self.k, self.matcher = distance, k, matcher
        self.classification_metrics = [make_classification_metric(one) for one in metrics]
        self.retrieval_metrics = list(retrieval_metrics or ())
        self.evaluator = MemoryEvaluator()
        self.queries = {"": (queries, labels)}
        if known_classes is not None:
            known = np.isin(labels, to_numpy(known_classes))
            if known.all() or not known.any():
                raise ValueError(
                    "`known_classes` divides the queries, which must be of both kinds. Received "
                    f"{int(known.sum())} queries of known classes, and {int((~known).sum())} of "
                    "others."
                )
            self.queries = {
                "_known_classes": (queries[known], labels[known]),
                "_unknown_classes": (queries[~known], labels[~known]),
            }

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Embed, look up and measure."""
        embeddings = self._embedded(self.targets)
        index = Indexer(embeddings.shape[1], self.distance, "linear")
        index.batch_add(embeddings, self.target_labels, verbose=0)
        for suffix, (queries, labels) in self.queries.items():
            found = self._measured(index, self._embedded(queries), labels)
            if logs is not None:
                logs.update({f"{name}{suffix}": float(value) for name, value in found.items()})

    def _measured(self, index: Indexer, queries: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        k = max([self.k, *(metric.k + 1 for metric in self.retrieval_metrics)])
        lookups = index.batch_lookup(queries, k=min(k, index.size()), verbose=0)
        found: dict[str, Any] = {}
        if self.classification_metrics:
            nearest = [row[: self.k] for row in lookups]
            told = self.evaluator.evaluate_classification(
                query_labels=labels,
                lookup_labels=unpack_lookup_labels(nearest),
                lookup_distances=unpack_lookup_distances(nearest),
                distance_thresholds=self.distance_thresholds,
                metrics=self.classification_metrics,
                matcher=self.matcher,
                verbose=0,
            )
            found = {name: value[0] for name, value in told.items() if name != "distance"}
        if self.retrieval_metrics:
            found |= self.evaluator.evaluate_retrieval(labels, lookups, self.retrieval_metrics)
        return found

    def _embedded(self, x: Any) -> np.ndarray:
        rows = self.model.predict(x, verbose=0)
        index = getattr(self.model, "_indexer", None)
        chosen = getattr(index, "embedding_output", None)
        return rows if chosen is None else rows[chosen]


def _pair(x: Any, labels: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    rows, classes = to_numpy(x), to_numpy(labels).reshape(-1)
    if len(rows) != len(classes):
        raise ValueError(
            f"`{name}` must have a label for each example. Received {len(rows)} examples and "
            f"{len(classes)} labels."
        )
    return rows, classes
