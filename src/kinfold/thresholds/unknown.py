"""The distance at which a query is answered, or taken for something that is not known."""

import collections
from typing import Any

import numpy as np

from kinfold import distances
from kinfold.core.checks import Tensor
from kinfold.core.labels import integer_labels
from kinfold.metrics.compared import Gallery, paired
from kinfold.metrics.retrieval import neighbours
from kinfold.metrics.task import to_numpy
from kinfold.thresholds import intervals
from kinfold.thresholds.curves import largest_with_far
from kinfold.thresholds.result import Threshold, made

MOST = 2000  # queries


def calibrate_search(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    far: float = 0.01,
    *,
    distance: Any = "cosine",
    own: np.ndarray | None = None,
) -> Threshold:
    """Find the distance up to which the nearest item of a gallery answers a query.

    A query of an unknown class is accepted if any item is near enough, so the rate rises with the
    size of the gallery: at 1% of pairs, a gallery of 10,000 accepts nearly every unknown query.
    Here the rate is that of unknown queries. Each query is searched among the items of all other
    classes, as if its own class were not there, and `far` is the share of queries that find
    something near enough.

    Use queries of classes that the model was not trained on.

    Args:
        queries: floating [n, d]; of more than 2,000, 2,000 are drawn, always the same ones.
        query_labels: integers [n] or [n, 1].
        gallery: floating [m, d], what is searched in.
        gallery_labels: integers [m] or [m, 1], numbered as the queries' are.
        far: the share of unknown queries to accept.
        distance: a name that `kinfold.distances.get` knows, or a `Distance`.
        own: int [n], the row of the gallery that is the query itself, or -1; None for none.

    Returns:
        The threshold per unknown query. Its `recall` is the share of queries whose class is in the
        gallery whose nearest item is of their class and accepted; NaN where there is no such query.

    Raises:
        ValueError: shapes that do not fit, no query with another class in the gallery, or a rate
            that is less than one query.
        TypeError: labels that are not integers.

    Example:

    >>> import numpy as np
    >>> from kinfold import thresholds
    >>> x, y = np.arange(40.0)[:, None] * 10, np.arange(40)
    >>> found = thresholds.calibrate_search(x + 1, y, x, y, far=0.05, distance="euclidean")
    >>> found.distance < 9, found.recall
    (True, 1.0)
    """
    if not 0 < far <= 1:
        raise ValueError(f"`far` must be above 0 and at most 1. Received: far={far}.")
    x, r = to_numpy(queries), to_numpy(gallery)
    y = integer_labels(to_numpy(query_labels), "query_labels").astype(np.int64)
    z = integer_labels(to_numpy(gallery_labels), "gallery_labels").astype(np.int64)
    if x.ndim != 2 or r.ndim != 2 or len(x) != len(y) or len(r) != len(z):
        raise ValueError(
            "Queries and gallery must each have a label per row. Received shapes "
            f"{x.shape} and {y.shape}, {r.shape} and {z.shape}."
        )
    if own is not None and np.shape(own) != (len(x),):
        raise ValueError(
            f"`own` must hold a row for each query. Received shape {np.shape(own)} for "
            f"{len(x)} queries."
        )
    rows = np.arange(len(x))
    if len(x) > MOST:
        rows = np.sort(np.random.default_rng(0).permutation(len(x))[:MOST])
    x, y = x[rows], y[rows]
    selves = np.full(len(x), -1) if own is None else np.asarray(own)[rows]
    ready = Gallery(r, distance)
    stranger, known, answered = _nearest(x, y, ready, r, z, distance, selves)
    has_other = np.isfinite(stranger)
    if not has_other.any():
        raise ValueError("No query has an item of another class in the gallery.")
    other = np.sort(stranger[has_other])
    limit = largest_with_far(other, far)
    # What should be accepted are queries of known classes; a wrong answer is never near enough.
    same = np.sort(np.where(answered, known, np.inf)[np.isfinite(known)])
    of = np.unique(y[has_other], return_inverse=True)[1]
    taken = (stranger[has_other] <= np.float32(limit)).astype(np.float64)
    interval = intervals.of_queries(np.bincount(of, taken), np.bincount(of).astype(np.float64))
    return made(
        limit,
        same,
        other,
        interval,
        per="unknown query",
        classes=int(of.max()) + 1,
        examples=len(x),
        similarity=ready.kind.similarity,
    )


def _nearest(
    x: np.ndarray,
    y: np.ndarray,
    gallery: Gallery,
    r: np.ndarray,
    z: np.ndarray,
    distance: Any,
    selves: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each query the distance to other classes and to its own, and whether its own is nearer."""
    stranger, known = np.full((2, len(x)), np.inf, np.float32)
    sizes = collections.Counter(z.tolist())
    waiting, k = np.arange(len(x)), 8
    while len(waiting):
        k = min(k, len(z))
        items, values = neighbours(x[waiting], k, gallery, distance)
        values = -values if gallery.kind.similarity else values
        alone = items != selves[waiting][:, None]
        alike = z[items] == y[waiting][:, None]
        stranger[waiting] = np.where(alone & ~alike, values, np.inf).min(axis=1)
        known[waiting] = np.where(alone & alike, values, np.inf).min(axis=1)
        lacks = np.isinf(stranger[waiting]) | np.isinf(known[waiting])
        if k == len(z):
            break
        # A class that is not in the gallery is never found; one that is far, after a few more.
        own = np.array([sizes[label] for label in y[waiting].tolist()])
        own -= selves[waiting] >= 0
        lacks &= np.isinf(stranger[waiting]) | (own > 0)
        waiting, k = waiting[lacks], 4 * k
        if len(waiting) and k > 64:  # its own class is far: measure that alone
            far = np.isfinite(stranger[waiting])
            for query in waiting[far]:
                members = np.flatnonzero(z == y[query])
                members = members[members != selves[query]]
                one = np.repeat(x[query : query + 1], len(members), axis=0)
                known[query] = paired(distances.get(distance), one, r[members]).min()
            waiting = waiting[~far]
    return stranger, known, known < stranger
