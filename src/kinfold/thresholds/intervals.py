"""How far a false accept rate may differ on classes that were never seen.

The distances of one class are correlated: a class that is easily mistaken is mistaken many times.
So the bootstrap draws whole classes, with replacement, and not distances (Poh, Martin and Bengio
2007; Bolle, Ratha and Pankanti 2004 for the subsets bootstrap of whole persons).
"""

import numpy as np

FEWEST = 10  # classes
_DRAWS = 2000


def of_pairs(accepted: np.ndarray, sizes: np.ndarray) -> tuple[float, float] | None:
    """The interval of a rate among pairs of different classes.

    Args:
        accepted: [c, c], how many pairs of each two classes are accepted; 0 on the diagonal.
        sizes: [c], the examples of each class.
    """
    if len(sizes) < FEWEST:
        return None
    weights = _weights(len(sizes))
    right = np.einsum("wc,wc->w", weights @ accepted, weights)
    pairs = np.maximum((weights @ sizes) ** 2 - weights**2 @ sizes**2, 1)
    return _interval(right / pairs, accepted.sum() / (sizes.sum() ** 2 - np.sum(sizes**2)))


def of_queries(accepted: np.ndarray, sizes: np.ndarray) -> tuple[float, float] | None:
    """The interval of a rate among queries.

    Args:
        accepted: [c], how many queries of each class are accepted.
        sizes: [c], how many there are.
    """
    if len(sizes) < FEWEST:
        return None
    weights = _weights(len(sizes))
    return _interval(weights @ accepted / (weights @ sizes), accepted.sum() / sizes.sum())


def _weights(classes: int) -> np.ndarray:
    """How often each class is drawn, [draws, c]: first of as many classes, then of half as many."""
    rng = np.random.default_rng(0)
    drawn = [rng.integers(classes, size=(_DRAWS, size)) for size in (classes, -(-classes // 2))]
    rows = [row for part in drawn for row in part]
    return np.stack([np.bincount(row, minlength=classes) for row in rows]).astype(np.float64)


def _interval(rates: np.ndarray, rate: float) -> tuple[float, float]:
    """Where the rate on new classes lies; chance counts twice, as these classes were drawn, too.

    The threshold is set on one draw of classes and then meets another draw, so the rate there is
    scaled by the ratio of the two. The other draw has half as many classes, so that the interval
    also holds for a smaller set.
    """
    set_on, met = np.maximum(rates[:_DRAWS], 1e-12), rates[_DRAWS:]
    low, high = np.quantile(rate * met / set_on, (0.025, 0.975))
    return float(low), float(min(high, 1.0))
