"""What a calibration gives."""

import numpy as np

from _kinfold_threshold import Curve
from _kinfold_threshold import Threshold as Threshold


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
