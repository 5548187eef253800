"""What each threshold would accept: the data of ROC and DET curves."""

from typing import NamedTuple

import numpy as np

_POINTS = 512


class Curve(NamedTuple):
    """What is accepted at rising distances, float arrays [points].

    A ROC curve is `recall` over `far`, a DET curve `1 - recall` over `far`.

    Attributes:
        distance: the threshold; what is no farther is accepted (with a similarity: no less).
        far: the share of what should be refused that is accepted.
        recall: the share of what should be accepted that is.
        precision: the share of what is accepted that should be.
    """

    distance: np.ndarray
    far: np.ndarray
    recall: np.ndarray
    precision: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """The harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, both, where=both > 0, out=0 * both)

    @classmethod
    def of(cls, same: np.ndarray, other: np.ndarray) -> "Curve":
        """From the sorted distances of what should be accepted and of what should be refused."""
        steps = np.linspace(0, 1, _POINTS // 2)
        # Evenly over what is to be accepted, and by factors over what is not: both ends are seen.
        rare = np.geomspace(1 / len(other), 1, _POINTS // 2)
        at = np.concatenate([_at(same, steps) if len(same) else same, _at(other, rare)])
        at = np.unique(at)
        return cls.at(at[np.isfinite(at)], same, other)

    @classmethod
    def at(cls, distance: np.ndarray, same: np.ndarray, other: np.ndarray) -> "Curve":
        """At these distances."""
        right = np.searchsorted(same, distance, side="right")
        wrong = np.searchsorted(other, distance, side="right")
        taken = np.maximum(right + wrong, 1)
        precision = np.where(right + wrong > 0, right / taken, 1.0)
        recall = right / len(same) if len(same) else np.full(len(distance), np.nan)
        return cls(distance, wrong / len(other), recall, precision)


def _at(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    return values[np.ceil(shares * len(values)).astype(int).clip(1) - 1]


def largest_with_far(other: np.ndarray, far: float) -> float:
    """The largest distance that accepts at most a share of what should be refused.

    Args:
        other: sorted distances of what should be refused.
        far: the share.

    Raises:
        ValueError: it is less than one of them.
    """
    allowed = int(np.floor(far * len(other) * (1 + 1e-12)))
    if allowed == 0:
        digits = 10.0 ** (len(str(len(other))) + 1)
        raise ValueError(
            f"far={far:g} is less than one of the {len(other):,} distances that there are to "
            f"calibrate by: ask for at least {np.ceil(digits / len(other)) / digits:g}, or give "
            "more examples."
        )
    if allowed == len(other):
        return float(other[-1])
    return float(np.nextafter(other[allowed], np.float32(-np.inf)))
