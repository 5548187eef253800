"""The case table: a row gives a pair loss every common test.

A row names the loss, how to build it, and its equation once more in plain NumPy, one anchor at a
time, as the oracle in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kinfold import losses
from kinfold.compat.tensorflow_similarity import losses as tfsim

Row = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Case:
    """A loss under test: `row(positive distances, negative distances)` is its equation."""

    name: str
    build: Callable[..., losses.PairLoss]
    row: Row
    distance: str = "cosine"
    mean_counts_invalid: bool = False

    def __str__(self) -> str:
        return self.name


def _softplus(z: float) -> float:
    return float(np.logaddexp(0.0, z))


def _lse(z: np.ndarray) -> float:
    return float(np.logaddexp.reduce(z))


def _circle_logits(
    p: np.ndarray, n: np.ndarray, gamma: float = 80.0, margin: float = 0.4
) -> tuple[float, float]:
    positive = gamma * np.maximum(margin + p, 0) * (p - margin)
    negative = gamma * np.maximum(1 + margin - n, 0) * (1 - margin - n)
    return _lse(positive), _lse(negative)


def _circle(**kwargs: Any) -> Row:
    return lambda p, n: _softplus(sum(_circle_logits(p, n, **kwargs)))


def _tfsim_circle(p: np.ndarray, n: np.ndarray) -> float:
    return sum(map(_softplus, _circle_logits(p, n)))


def _pair_contrastive(near: float, far: float) -> Row:
    return lambda p, n: float(
        np.mean(np.maximum(p - near, 0) ** 2) + np.mean(np.maximum(far - n, 0) ** 2)
    )


def _made(loss: type, **fixed: Any) -> Callable[..., losses.PairLoss]:
    return lambda **kwargs: loss(**{**fixed, **kwargs})


CASES = [
    Case("circle", _made(losses.CircleLoss), _circle()),
    Case(
        "circle_gamma_300",
        _made(losses.CircleLoss, gamma=300.0, margin=0.25),
        _circle(gamma=300.0, margin=0.25),
    ),
    *(
        Case(
            f"circle_{distance}",
            _made(losses.CircleLoss, gamma=10.0, distance=distance),
            _circle(gamma=10.0),
            distance,
        )
        for distance in ("euclidean", "squared_euclidean", "inner_product", "manhattan", "snr")
    ),
    Case(
        "pair_contrastive", _made(losses.PairContrastiveLoss), _pair_contrastive(0, 1), "euclidean"
    ),
    Case(
        "pair_contrastive_margins",
        _made(
            losses.PairContrastiveLoss, positive_margin=0.2, negative_margin=0.7, distance="cosine"
        ),
        _pair_contrastive(0.2, 0.7),
    ),
    Case("tfsim_circle", _made(tfsim.CircleLoss), _tfsim_circle, mean_counts_invalid=True),
]


def distances(x: np.ndarray, r: np.ndarray, name: str) -> np.ndarray:
    """Every distance, one pair at a time, in float64."""
    pair: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "cosine": lambda a, b: max(1 - a @ b, 0.0),
        "euclidean": lambda a, b: np.sqrt(((a - b) ** 2).sum()),
        "squared_euclidean": lambda a, b: ((a - b) ** 2).sum(),
        "inner_product": lambda a, b: a @ b,
        "manhattan": lambda a, b: np.abs(a - b).sum(),
        "snr": lambda a, b: np.var(a - b) / np.var(a),
    }
    x, r = x.astype(np.float64), r.astype(np.float64)
    return np.array([[pair[name](a, b) for b in r] for a in x]).reshape(len(x), len(r))


def expected_rows(
    case: Case,
    y: np.ndarray,
    x: np.ndarray,
    ref_y: np.ndarray | None = None,
    ref_x: np.ndarray | None = None,
    remove_diagonal: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and validity of each anchor by the case's equation, with plain loops."""
    d = distances(x, x if ref_x is None else ref_x, case.distance)
    ref_y = y if ref_y is None else ref_y
    rows, valid = np.zeros(len(y)), np.zeros(len(y), bool)
    for i in range(len(y)):
        same = ref_y == y[i]
        negative = ~same
        if remove_diagonal and i < len(ref_y):
            same[i] = False
        valid[i] = same.any() and negative.any()
        if valid[i]:
            rows[i] = case.row(d[i, same], d[i, negative])
    return rows, valid


def batch(
    n: int, d: int = 8, classes: int = 5, seed: int = 0, dtype: str = "float32"
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n] and embeddings [n, d] of unit norm."""
    rng = np.random.default_rng([seed, n])
    x = rng.normal(size=(n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return rng.integers(0, classes, n), x.astype(dtype)
