"""What a calibration gives."""

from dataclasses import dataclass, field

import numpy as np

from kinfold.thresholds.curves import Curve


@dataclass(frozen=True)
class Threshold:
    """A distance from which on things are taken for different, and how often that is wrong.

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


def made(
    limit: float,
    same: np.ndarray,
    other: np.ndarray,
    interval: tuple[float, float] | None,
    *,
    per: str,
    classes: int,
    examples: int,
    similarity: bool,
) -> Threshold:
    """From sorted distances, smaller is closer, and the limit among them."""
    here = Curve.at(np.array([limit]), same, other)
    curve = Curve.of(same, other)
    sign = -1 if similarity else 1
    return Threshold(
        sign * limit,
        float(here.far[0]),
        interval,
        float(here.recall[0]),
        float(here.precision[0]),
        curve._replace(distance=sign * curve.distance),
        per,
        classes,
        examples,
        similarity,
    )


def said(threshold: Threshold) -> str:
    """A threshold in words."""
    low, high = threshold.interval or (0.0, 1.0)
    interval = "too few classes to tell what it is on others"
    if high <= 0.5:
        interval = f"{low:.2%} to {high:.2%} on classes never seen, with 95% confidence"
    of = "pairs of one class" if threshold.per == "pair" else "queries of known classes"
    return (
        f"Distance {threshold.distance:.4f}: {threshold.far:.2%} false accepts per "
        f"{threshold.per} ({interval}), and {threshold.recall:.1%} of {of} are found."
    )
