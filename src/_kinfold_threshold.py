"""A threshold with its curve; beside the package, so that it needs no Keras."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
    def of(cls, same: np.ndarray, other: np.ndarray) -> Curve:
        """From the sorted distances of what should be accepted and of what should be refused."""
        steps = np.linspace(0, 1, _POINTS // 2)
        # Evenly over what is to be accepted, and by factors over what is not: both ends are seen.
        rare = np.geomspace(1 / len(other), 1, _POINTS // 2)
        at = np.concatenate([_at(same, steps) if len(same) else same, _at(other, rare)])
        at = np.unique(at)
        return cls.at(at[np.isfinite(at)], same, other)

    @classmethod
    def at(cls, distance: np.ndarray, same: np.ndarray, other: np.ndarray) -> Curve:
        """At these distances."""
        right = np.searchsorted(same, distance, side="right")
        wrong = np.searchsorted(other, distance, side="right")
        taken = np.maximum(right + wrong, 1)
        precision = np.where(right + wrong > 0, right / taken, 1.0)
        recall = right / len(same) if len(same) else np.full(len(distance), np.nan)
        return cls(distance, wrong / len(other), recall, precision)


def _at(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    return values[np.ceil(shares * len(values)).astype(int).clip(1) - 1]


@dataclass(frozen=True)
class Threshold:
    """A distance up to which two things count as the same, and how often that is wrong.

    Attributes:
        distance: what is no farther is accepted; with a similarity, what is no less similar.
        far: the false accept rate of the examples that it was calibrated by.
        interval: (low, high), the 95% interval of the false accept rate at this distance on classes
            never seen, half as many as it was calibrated by or more; None with fewer than 10.
        recall: the share of what should be accepted that is.
        precision: the share of what is accepted that should be.
        curve: all of this at other distances.
        per: "pair" or "unknown query": what the rates are shares of.
        classes: how many classes it was calibrated by.
        examples: how many examples of these.
        similarity: whether larger is closer.
    """

    distance: float
    far: float
    interval: tuple[float, float] | None
    recall: float
    precision: float
    curve: Curve = field(repr=False)
    per: str
    classes: int
    examples: int
    similarity: bool = False

    def accepts(self, distances: np.ndarray) -> np.ndarray:
        """Whether each distance is accepted, booleans of the same shape."""
        values = np.asarray(distances, np.float32)
        limit = np.float32(self.distance)
        return values >= limit if self.similarity else values <= limit

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold: None in place of NaN and infinity."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            **{name: _or_none(getattr(self, name)) for name in _RATES},
            "interval": None if self.interval is None else list(map(_or_none, self.interval)),
            "curve": {
                name: [_or_none(float(one)) for one in column]
                for name, column in self.curve._asdict().items()
            },
        }

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Threshold:
        """What `as_dict` gave."""
        curve = Curve(*(_column(given["curve"][name]) for name in Curve._fields))
        interval = given["interval"]
        if interval is not None:
            low, high = _column(interval).tolist()
            interval = low, high
        plain = {name: given[name] for name in _PLAIN}
        rates = dict(zip(_RATES, _column([given[name] for name in _RATES]).tolist(), strict=True))
        return cls(**plain, **rates, interval=interval, curve=curve)


class Calibration(NamedTuple):
    """Both thresholds of a run.

    Attributes:
        query: up to which distance the nearest item of the run's index answers; None if the run
            cannot tell.
        pair: up to which distance two examples are of one class; None if the run cannot tell.
        why: why one is missing; "" if none is.
    """

    query: Threshold | None
    pair: Threshold | None
    why: str

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        query, pair = (one and one.as_dict() for one in (self.query, self.pair))
        return {"query": query, "pair": pair, "why": self.why}

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Calibration:
        """What `as_dict` gave."""
        query, pair = (
            given[name] and Threshold.from_dict(given[name]) for name in ("query", "pair")
        )
        return cls(query, pair, given["why"])


_PLAIN = "distance", "per", "classes", "examples", "similarity"
_RATES = "far", "recall", "precision"


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _column(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if one is None else one for one in values], np.float64)
