"""Cosine similarities of pairs, and how well one threshold tells same from different."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Accepts:
    """What one threshold does: pairs at least as similar count as the same."""

    found: float  # share of the positive pairs accepted
    threshold: float | None  # cosine similarity; None where no threshold is high enough
    wrongly: int  # number of negative pairs accepted


@dataclass(frozen=True)
class Similarities:
    """Cosine similarities of pairs of one class and of pairs of two classes."""

    positive: np.ndarray
    negative: np.ndarray
    positive_pairs: int  # in the whole set; `positive` is a sample where it is shorter
    negative_pairs: int

    def separation(self) -> float:
        """Probability that a positive pair is more similar than a negative one (ties half)."""
        from sklearn.metrics import roc_auc_score

        return float(roc_auc_score(*self._scored()))

    def accepts(self, rate: float) -> Accepts | None:
        """Share of positive pairs found at the lowest threshold that keeps false accepts to `rate`.

        None where `rate` is under one negative pair, or there are no positive pairs.
        """
        from sklearn.metrics import roc_curve

        if not len(self.positive) or rate * len(self.negative) < 1:
            return None
        false, found, thresholds = roc_curve(*self._scored(), drop_intermediate=False)
        last = int(np.searchsorted(false, rate, side="right")) - 1
        if last < 1:  # more negative pairs than allowed share the highest similarity of all
            return Accepts(0.0, None, 0)
        accepted = round(float(false[last]) * len(self.negative))
        return Accepts(float(found[last]), float(thresholds[last]), accepted)

    def _scored(self) -> tuple[np.ndarray, np.ndarray]:
        same = np.repeat([True, False], [len(self.positive), len(self.negative)])
        return same, np.concatenate([self.positive, self.negative])


def similarities(vectors: np.ndarray, y: np.ndarray, limit: int = 200_000) -> Similarities:
    """All positive pairs up to a limit, beyond it a seeded sample; the same for negatives."""
    vectors = np.asarray(vectors, dtype="float32")
    n, width = vectors.shape
    limit = min(limit, max(2_000, 2**28 // width))  # raw photos are wide: bound the work
    rng = np.random.default_rng(0)

    order = np.argsort(y, kind="stable")
    counts = np.unique(y, return_counts=True)[1].astype(np.int64)
    ends = np.cumsum(counts * (counts - 1) // 2)
    positive_pairs = int(ends[-1])
    negative_pairs = n * (n - 1) // 2 - positive_pairs

    # Positive pairs are numbered class by class; within a class pair r is row j, column i < j.
    number = (
        np.arange(positive_pairs)
        if positive_pairs <= limit
        else rng.integers(positive_pairs, size=limit)
    )
    group = np.searchsorted(ends, number, side="right")
    within = number - (ends - counts * (counts - 1) // 2)[group]
    j = ((1 + np.sqrt(1 + 8 * within.astype("float64"))) / 2).astype(np.int64)
    i = within - j * (j - 1) // 2
    start = (np.cumsum(counts) - counts)[group]
    positive = _paired(vectors, order[start + i], order[start + j])

    if n * (n - 1) // 2 <= limit:
        a, b = np.triu_indices(n, 1)
    else:
        a, b = rng.integers(n, size=(2, limit))
    different = y[a] != y[b]
    negative = _paired(vectors, a[different], b[different])
    return Similarities(positive, negative, positive_pairs, negative_pairs)


def _paired(vectors: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """[m]: the inner products of rows i and j, in blocks of about 32 MB."""
    block = max(1, 2**22 // vectors.shape[1])
    out = np.empty(len(i), dtype="float32")
    for start in range(0, len(i), block):
        part = slice(start, start + block)
        out[part] = np.einsum("nd,nd->n", vectors[i[part]], vectors[j[part]])
    return np.clip(out, -1.0, 1.0)
