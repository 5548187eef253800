"""Retrieval metrics of each class or group."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.labels import integer_labels
from kinfold.metrics.retrieval import check_gallery, score_queries
from kinfold.metrics.task import Task, to_numpy

KINDS = ("class", "group")


def retrieval_table(
    query: Tensor,
    query_labels: Tensor,
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    metrics: Sequence[str] = ("recall@1", "map@r"),
    distance: Any = "cosine",
    *,
    query_groups: Tensor | None = None,
    gallery_groups: Tensor | None = None,
    by: str = "class",
) -> dict[str, np.ndarray]:
    """The metrics of `retrieval_metrics` for the queries of each class, or of each group.

    A table that shows which classes, cameras or sellers are found badly. As there, queries with
    nothing to find are left out; a class of such queries alone has NaN.

    Args:
        query: floating [n, d].
        query_labels: integers [n] or [n, 1].
        gallery: floating [m, d], or None.
        gallery_labels: integers [m] or [m, 1]; given exactly when `gallery` is.
        metrics: names, as for `retrieval_metrics`.
        distance: a name that `kinfold.distances.get` knows, or a `Distance`.
        query_groups: integers [n] or [n, 1], or None; no query is ranked against items of its own
            class and group.
        gallery_groups: integers [m]; given exactly when `gallery` and `query_groups` are.
        by: "class", or "group" for the queries of each group.

    Returns:
        Columns, as `pandas.DataFrame` takes them: "class" or "group", ids in order; "queries", how
        many count; and a column for each metric.

    Raises:
        ValueError: as `retrieval_metrics`; an unknown `by`, or groups that are not given.
        TypeError: labels that are not integers, embeddings that are not numbers.

    Example:

    >>> import numpy as np
    >>> from kinfold.metrics import retrieval_table
    >>> x = np.array([[0.0], [1.0], [1.5], [9.0], [8.0]], "float32")
    >>> y = np.array([5, 5, 7, 7, 7])
    >>> table = retrieval_table(x, y, metrics=["recall@2", "mrr"], distance="euclidean")
    >>> {name: column.round(2).tolist() for name, column in table.items()}
    {'class': [5, 7], 'queries': [2, 3], 'recall@2': [1.0, 0.67], 'mrr': [0.75, 0.78]}
    """
    by = checks.choice(by, "by", KINDS)
    if by == "group" and query_groups is None:
        raise ValueError('by="group" needs `query_groups`. Received: query_groups=None.')
    check_gallery(gallery, gallery_labels)
    task = Task.of(query_labels, gallery_labels, metrics, query_groups, gallery_groups)
    scores = score_queries(task, query, gallery, distance)
    rows = query_labels if by == "class" else query_groups
    ids, at = np.unique(integer_labels(to_numpy(rows), by), return_inverse=True)
    counts = task.relevant > 0
    number = np.bincount(at[counts], minlength=len(ids))
    table = {by: ids, "queries": number}
    for name in metrics:
        if task.asked[name][0] == "count":
            raise ValueError(f"{name!r} is a number of queries, and a column of the table already.")
        total = np.bincount(at[counts], weights=scores[name][counts], minlength=len(ids))
        table[name] = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return table
