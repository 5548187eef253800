"""The distance at which pairs of things are taken for the same."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kinfold.core.checks import Tensor
from kinfold.core.labels import integer_labels
from kinfold.metrics.compared import Comparison
from kinfold.metrics.retrieval import blocks
from kinfold.metrics.task import to_numpy
from kinfold.thresholds import intervals
from kinfold.thresholds.curves import Curve, largest_with_far
from kinfold.thresholds.result import Threshold, made

MOST = 5000  # examples that are compared with one another


def calibrate(
    embeddings: Tensor,
    labels: Tensor,
    far: float | None = None,
    *,
    precision: float | None = None,
    recall: float | None = None,
    best_f1: bool = False,
    distance: Any = "cosine",
) -> Threshold:
    r"""Find the distance up to which two examples are taken for one class.

    With the distances d of all pairs of examples of different classes (D) and of the same (S), the
    false accept rate and the recall of a threshold t are

        far(t) = |{d in D: d <= t}| / |D|,    recall(t) = |{d in S: d <= t}| / |S|

    and t is the largest with far(t) at most `far`; or with the precision asked for; or the smallest
    with the recall asked for; or the one with the best F1. Precision depends on the share of pairs
    that are of one class, so it holds for data with the same share.

    Use examples of classes that the model was not trained on: its training examples are closer. Of
    more than 5,000 examples, 5,000 are drawn, always the same ones, from as many classes as give
    two each.

    Args:
        embeddings: floating [n, d], as an array or a tensor of the backend.
        labels: integers [n] or [n, 1].
        far: the share of pairs of different classes to accept; 0.01 where nothing else is asked.
        precision: the share of accepted pairs that are to be of one class.
        recall: the share of pairs of one class to accept.
        best_f1: True for the distance with the best F1.
        distance: a name that `kinfold.distances.get` knows, or a `Distance`.

    Returns:
        The threshold, with the 95% interval of its false accept rate on classes never seen: a
        bootstrap over whole classes, as the distances of one class are correlated.

    Raises:
        ValueError: more than one thing is asked for, or what no distance gives; shapes that do not
            fit; one class, or no class with two examples.
        TypeError: labels that are not integers.

    Example:

    >>> import numpy as np
    >>> from kinfold import thresholds
    >>> x = np.repeat(np.eye(3), 2, axis=0) + np.array([[0.0], [0.1]] * 3)
    >>> found = thresholds.calibrate(x, [0, 0, 1, 1, 2, 2], recall=1.0, distance="euclidean")
    >>> round(found.distance, 2), found.far
    (0.17, 0.0)
    """
    asked = {"far": far, "precision": precision, "recall": recall, "best_f1": best_f1 or None}
    chosen = {name: value for name, value in asked.items() if value is not None}
    if len(chosen) > 1:
        raise ValueError(
            "Ask for one of far, precision, recall and best_f1. Received: "
            f"{', '.join(f'{name}={value}' for name, value in chosen.items())}."
        )
    name, value = next(iter(chosen.items())) if chosen else ("far", 0.01)
    if name != "best_f1" and not (0 < float(value) <= 1):
        raise ValueError(f"`{name}` must be above 0 and at most 1. Received: {name}={value}.")
    compared, y = _drawn_to_compare(embeddings, labels, distance)
    sizes = np.bincount(y).astype(np.float64)
    values, first, second = _pairs(compared)
    alike = y[first] == y[second]
    same, other = np.sort(values[alike]), np.sort(values[~alike])
    limit = _limit(name, float(value), same, other)
    taken = ~alike & (values <= np.float32(limit))
    accepted = np.zeros((len(sizes), len(sizes)))
    np.add.at(accepted, (y[first[taken]], y[second[taken]]), 1)
    return made(
        limit,
        same,
        other,
        intervals.of_pairs(accepted + accepted.T, sizes),
        per="pair",
        classes=len(sizes),
        examples=len(y),
        similarity=compared.kind.similarity,
    )


def fnmr_at_fmr(
    embeddings: Tensor,
    labels: Tensor,
    fmr: Sequence[float] = (0.01, 0.001),
    *,
    distance: Any = "cosine",
) -> dict[float, float]:
    """The false non-match rate at given false match rates, as biometrics reports verification.

    At the largest distance that accepts at most a share `fmr` of the pairs of different classes, it
    is the share of the pairs of one class that are refused: 1 less the recall of `calibrate`.

    Args:
        embeddings: floating [n, d], as an array or a tensor of the backend. Of more than 5,000,
            5,000 are drawn, always the same ones.
        labels: integers [n] or [n, 1].
        fmr: false match rates, each above 0 and at most 1.
        distance: a name that `kinfold.distances.get` knows, or a `Distance`.

    Returns:
        The false non-match rate of each.

    Raises:
        ValueError: a rate out of range, or less than one of the pairs; no pairs of a kind.
        TypeError: labels that are not integers.

    Example:

    >>> import numpy as np
    >>> from kinfold import thresholds
    >>> x = np.array([[0.0], [0.2], [0.3], [1.0], [1.1], [2.0]])
    >>> y = np.array([0, 0, 1, 1, 2, 2])
    >>> found = thresholds.fnmr_at_fmr(x, y, (0.25, 0.5), distance="euclidean")
    >>> {rate: round(value, 2) for rate, value in found.items()}
    {0.25: 0.33, 0.5: 0.0}
    """
    for rate in fmr:
        if not 0 < rate <= 1:
            raise ValueError(f"`fmr` must be above 0 and at most 1. Received: {rate}.")
    compared, y = _drawn_to_compare(embeddings, labels, distance)
    values, first, second = _pairs(compared)
    alike = y[first] == y[second]
    same, other = values[alike], np.sort(values[~alike])
    limits = {rate: np.float32(largest_with_far(other, rate)) for rate in fmr}
    return {rate: float(np.mean(same > limit)) for rate, limit in limits.items()}


def _drawn_to_compare(
    embeddings: Tensor, labels: Tensor, distance: Any
) -> tuple[Comparison, np.ndarray]:
    """Examples to compare with one another, 5,000 at most, and their classes from 0."""
    x, y = to_numpy(embeddings), integer_labels(to_numpy(labels), "labels")
    if x.ndim != 2 or len(x) != len(y):
        raise ValueError(
            "`embeddings` must have shape [n, d] and `labels` [n]. Received shapes "
            f"{x.shape} and {y.shape}."
        )
    rows = drawn(y, MOST)
    y = np.unique(y[rows], return_inverse=True)[1]
    sizes = np.bincount(y)
    if len(sizes) < 2 or sizes.max() < 2:
        raise ValueError(
            "Calibrating needs pairs of one class and of different ones: two classes at least, "
            f"one of them with two examples. Received {len(sizes)} classes, the largest with "
            f"{int(sizes.max())}."
        )
    return Comparison.of(x[rows], None, distance), y


def rates(
    threshold: Threshold, embeddings: np.ndarray, labels: np.ndarray, distance: Any = "cosine"
) -> tuple[float, float]:
    """What a threshold does on other examples: the false accept rate and the recall of pairs.

    Of more than 5,000 examples, 5,000 are drawn. NaN if there are no such pairs.
    """
    rows = drawn(labels, MOST)
    y = labels[rows]
    values, first, second = _pairs(Comparison.of(embeddings[rows], None, distance))
    taken = threshold.accepts(-values if threshold.similarity else values)
    alike = y[first] == y[second]
    return tuple(  # type: ignore[return-value]
        float(taken[which].mean()) if which.any() else float("nan") for which in (~alike, alike)
    )


def drawn(y: np.ndarray, most: int) -> np.ndarray:
    """Rows of at most so many examples, alike of each class and two at least; always the same."""
    if len(y) <= most:
        return np.arange(len(y))
    rng = np.random.default_rng(0)
    order = rng.permutation(len(y))
    classes, of = np.unique(y[order], return_inverse=True)
    places = np.argsort(of, kind="stable")
    starts = np.cumsum(np.bincount(of)) - np.bincount(of)
    rank = np.empty(len(y), np.int64)  # of each example within its class
    rank[places] = np.arange(len(y)) - np.repeat(starts, np.bincount(of))
    kept = rng.permutation(len(classes))[: max(2, most // 2)]
    each = max(2, most // len(kept))
    return np.sort(order[np.isin(of, kept) & (rank < each)])[:most]


def _pairs(compared: Comparison) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances of all pairs, each once, smaller is closer, and the rows that they are of."""
    n = len(compared.x)
    values, firsts, seconds = [], [], []
    for rows, block in blocks(compared, np.arange(n)):
        i, j = np.nonzero(rows[:, None] < np.arange(n))
        values.append(block[i, j])
        firsts.append(rows[i].astype(np.int32))
        seconds.append(j.astype(np.int32))
    return tuple(map(np.concatenate, (values, firsts, seconds)))  # type: ignore[return-value]


def _limit(name: str, value: float, same: np.ndarray, other: np.ndarray) -> float:
    """The distance that gives what is asked for."""
    if name == "far":
        return largest_with_far(other, value)
    if name == "recall":
        return float(same[int(np.ceil(value * len(same) * (1 - 1e-12))) - 1])
    every = Curve.at(np.unique(same), same, other)
    if name == "best_f1":
        return float(every.distance[int(np.argmax(every.f1))])
    enough = np.flatnonzero(every.precision >= value)
    if not len(enough):
        raise ValueError(
            f"No distance gives a precision of {value}; the best is {every.precision.max():.4f}."
        )
    return float(every.distance[enough[-1]])
