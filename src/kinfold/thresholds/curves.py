"""The largest threshold with a given rate of false accepts."""

import numpy as np

from _kinfold_threshold import Curve as Curve


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
