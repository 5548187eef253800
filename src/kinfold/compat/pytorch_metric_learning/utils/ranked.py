"""Numbers of ranked lists of labels, as pytorch-metric-learning has them."""

from typing import Any

import numpy as np

from kinfold.compat.pytorch_metric_learning.utils.embedding import as_numpy, native

Labels = Any  # an array or a tensor [n, ...]


def equality(a: Any, b: Any) -> Any:
    """Whether labels of one number are equal."""
    return a == b


def precision_at_k(
    knn_labels: Labels,
    gt_labels: Labels,
    k: int,
    avg_of_avgs: bool,
    return_per_class: bool,
    label_comparison_fn: Any,
) -> Any:
    """The share of the first k that are of the query's class.

    Args:
        knn_labels: labels of the nearest [n, at least k], nearest first.
        gt_labels: labels of the queries [n, 1].
        k: how many count.
        avg_of_avgs, return_per_class: whether the mean of classes, or each class's, is returned.
        label_comparison_fn: tells which labels match.
    """
    hits = _matches(label_comparison_fn, gt_labels, knn_labels[:, :k])
    return averaged(hits.sum(1) / k, gt_labels, avg_of_avgs, return_per_class)


def r_precision(
    knn_labels: Labels,
    gt_labels: Labels,
    ref_includes_query: bool,
    label_counts: tuple[Any, Any],
    avg_of_avgs: bool,
    return_per_class: bool,
    label_comparison_fn: Any,
) -> Any:
    """The share of the first R that are of the query's class, R being how many there are.

    Args:
        ref_includes_query: whether a query is one of its own R.
        label_counts: labels of queries, and how many references match each.
    """
    hits = _matches(label_comparison_fn, gt_labels, knn_labels)
    inside = np.arange(hits.shape[1]) < _number(gt_labels, label_counts, ref_includes_query)
    share = (hits & inside).sum(1) / inside.sum(1)
    return averaged(share, gt_labels, avg_of_avgs, return_per_class)


def mean_average_precision(
    knn_labels: Labels,
    gt_labels: Labels,
    ref_includes_query: bool,
    label_counts: tuple[Any, Any],
    avg_of_avgs: bool,
    return_per_class: bool,
    label_comparison_fn: Any,
    at_r: bool = False,
) -> Any:
    """The sum of the precisions at the hits, over R; at the hits among the first R with `at_r`."""
    hits = _matches(label_comparison_fn, gt_labels, knn_labels)
    number = _number(gt_labels, label_counts, ref_includes_query)
    if at_r:
        hits &= np.arange(hits.shape[1]) < number
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    mean = (precision * hits).sum(1) / number[:, 0]
    return averaged(mean, gt_labels, avg_of_avgs, return_per_class)


def mean_reciprocal_rank(
    knn_labels: Labels,
    gt_labels: Labels,
    avg_of_avgs: bool,
    return_per_class: bool,
    label_comparison_fn: Any,
) -> Any:
    """1 over the rank of the first hit, 0 without one."""
    hits = _matches(label_comparison_fn, gt_labels, knn_labels)
    rank = np.where(hits.any(1), 1 / (hits.argmax(1) + 1.0), 0.0)
    return averaged(rank, gt_labels, avg_of_avgs, return_per_class)


def averaged(
    scores: np.ndarray, gt_labels: Labels, avg_of_avgs: bool, return_per_class: bool
) -> Any:
    """The mean of scores [n], the mean of the means of classes, or these as a list."""
    if not (avg_of_avgs or return_per_class):
        return float(scores.mean())
    classes = np.unique(as_numpy(gt_labels)[:, 0], axis=0, return_inverse=True)[1].reshape(-1)
    means = np.bincount(classes, weights=scores) / np.bincount(classes)
    return means.tolist() if return_per_class else float(means.mean())


def matching_counts(
    query_labels: np.ndarray, reference_labels: np.ndarray, label_comparison_fn: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The different labels of queries, and how many references match each."""
    labels = np.unique(query_labels, axis=0)
    refs = native(reference_labels)
    counts = [
        int(_matches(label_comparison_fn, native(labels[i : i + 1]), refs).sum())
        for i in range(len(labels))
    ]
    return labels, np.array(counts)


def _matches(label_comparison_fn: Any, a: Labels, b: Labels) -> np.ndarray:
    return as_numpy(label_comparison_fn(a, b)).astype(bool)


def _number(
    gt_labels: Labels, label_counts: tuple[Any, Any], ref_includes_query: bool
) -> np.ndarray:
    """How many references match each query, itself not counted [n, 1]."""
    known, counts = (as_numpy(part) for part in label_counts)
    own = as_numpy(gt_labels)[:, 0]
    return counts[same(own, known).argmax(1)][:, None] - bool(ref_includes_query)


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which labels [n, ...] and [m, ...] are one and the same [n, m]."""
    equal = a[:, None] == b
    return equal.all(axis=tuple(range(2, equal.ndim)))
