"""Whether an exported model still finds what the run's own model finds, on test classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kinfold.metrics import neighbours

MOST = 2000  # test examples that are compared
_DRAWS = 1000
# What an export may lose: cosine of the worst example, and recall@1 by its interval's end.
COSINE = {"float32": 0.9999, "float16": 0.999, "int8": 0.9}
RECALL = 0.02


@dataclass(frozen=True)
class Parity:
    """How far the embeddings of an exported model are from the run's.

    Attributes:
        examples: how many were compared.
        cosine: similarity of the two embeddings of an example, its mean and its least value.
        recall: recall@1 of the run's queries, and of exported queries, in the run's embeddings.
        recall_change: 95% interval of the change over classes; None with fewer than 2 classes.
        far: share of pairs of different classes that the threshold accepts, of the run and of
            exported queries; None without a threshold.
        far_change: 95% interval of the change.
    """

    examples: int
    cosine: tuple[float, float]
    recall: tuple[float, float]
    recall_change: tuple[float, float] | None
    far: tuple[float, float] | None = None
    far_change: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def fault(self, precision: str) -> str | None:
        """What is too far off, in a sentence; None where nothing is."""
        least = COSINE[precision]
        if not self.cosine[1] >= least:
            return (
                f"an example's embedding differs: cosine {self.cosine[1]:.4f}, and {precision} may "
                f"have {least}."
            )
        change = self.recall_change
        if change is not None and change[1] < -RECALL:
            return (
                f"it finds less: recall@1 is {self.recall[1]:.4f}, that of the run "
                f"{self.recall[0]:.4f}."
            )
        return None

    def lines(self) -> list[str]:
        """The comparison as lines of text."""

        def between(change: tuple[float, float] | None) -> str:
            return "" if change is None else f"  (change {change[0]:+.4f} to {change[1]:+.4f})"

        told = [
            f"compared on {self.examples:,} test examples",
            f"cosine of both embeddings: mean {self.cosine[0]:.6f}, least {self.cosine[1]:.6f}",
            f"recall@1: run {self.recall[0]:.4f}, exported {self.recall[1]:.4f}"
            + between(self.recall_change),
        ]
        if self.far is not None:
            told.append(
                f"false accepts at the threshold: run {self.far[0]:.4f}, exported "
                f"{self.far[1]:.4f}" + between(self.far_change)
            )
        return told


def compare(
    ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray, threshold: float | None
) -> Parity:
    """Compare embeddings of the same examples.

    Exported queries are searched in the run's own embeddings, as they will be in its index.

    Args:
        ours: of the run, float32 [n, d].
        theirs: of the exported model, float32 [n, d].
        labels: integers [n].
        threshold: a cosine distance; None where the run has none.
    """
    ours, theirs = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
                    for x in (ours, theirs))  # fmt: skip
    cosine = np.sum(ours * theirs, axis=1)
    names, of = np.unique(labels, return_inverse=True)
    hits = np.stack([_hits(queries, ours, labels) for queries in (ours, theirs)], 1)
    recall = float(hits[:, 0].mean()), float(hits[:, 1].mean())
    change = _interval(_sums(hits[:, 1] - hits[:, 0], of), np.bincount(of))
    far = far_change = None
    if threshold is not None and len(names) > 1:
        other = labels[:, None] != labels[None, :]
        accepted = [(1.0 - x @ ours.T <= threshold) & other for x in (ours, theirs)]
        counts = other.sum(1)
        far = _share(accepted[0], counts), _share(accepted[1], counts)
        more = accepted[1].sum(1) - accepted[0].sum(1)
        far_change = _interval(_sums(more, of), _sums(counts, of))
    both = float(cosine.mean()), float(cosine.min())
    return Parity(len(labels), both, recall, change, far, far_change)


def _share(accepted: np.ndarray, counts: np.ndarray) -> float:
    return float(accepted.sum() / counts.sum())


def _hits(queries: np.ndarray, gallery: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the nearest other example is of the same class, float [n]."""
    found, _ = neighbours(queries, 2, gallery)
    own = found[:, 0] == np.arange(len(queries))
    nearest = np.where(own, found[:, 1], found[:, 0])
    return (labels[nearest] == labels).astype(np.float64)


def _sums(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    return np.bincount(of, weights=values)


def _interval(parts: np.ndarray, sizes: np.ndarray) -> tuple[float, float] | None:
    """95% interval of sum(parts) / sum(sizes) where the classes are drawn anew."""
    if len(parts) < 2:
        return None
    drawn = np.random.default_rng(0).integers(len(parts), size=(_DRAWS, len(parts)))
    low, high = np.quantile(parts[drawn].sum(1) / sizes[drawn].sum(1), (0.025, 0.975))
    return float(low), float(high)
