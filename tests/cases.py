"""The case table: a row gives a pair loss every common test.

A row names the loss, how to build it, and its equation once more in plain NumPy, one anchor at a
time, as the oracle in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest

from kinfold import losses
from kinfold.compat.tensorflow_similarity import losses as tfsim

Row = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Case:
    """A loss under test: `row(positive distances, negative distances)` is its equation.

    `count(positive distances, negative distances)` is how many terms of an anchor a mean counts.
    Where a row of distances does not suffice (`among_references`), `row` takes the positions of
    the anchor's positives and negatives, its row of distances, and the references' labels and
    distances to each other.
    """

    name: str
    build: Callable[..., losses.PairLoss]
    row: Callable[..., float]
    distance: str = "cosine"
    mean_counts_invalid: bool = False
    count: Row = lambda p, n: 1.0
    among_references: bool = False

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


def _pair_contrastive(p: np.ndarray, n: np.ndarray) -> float:
    return float(np.mean(p) + (np.mean(1 - n[n < 1]) if (n < 1).any() else 0))


def _multi_similarity(alpha: float, beta: float, epsilon: float | None = None) -> Row:
    def row(p: np.ndarray, n: np.ndarray) -> float:
        if epsilon is not None:
            p, n = p[p > n.min() - epsilon], n[n < p.max() + epsilon]
            if not (len(p) and len(n)):
                return 0.0
        near, far = np.exp(alpha * (p - 0.5)).sum(), np.exp(beta * (0.5 - n)).sum()
        return np.log1p(near) / alpha + np.log1p(far) / beta

    return row


def _sup_con(temperature: float) -> Row:
    return lambda p, n: _lse(-np.concatenate([p, n]) / temperature) + np.mean(p) / temperature


def _nt_xent(temperature: float) -> Row:
    return lambda p, n: float(
        np.mean([_softplus(_lse(-n / temperature) + one / temperature) for one in p])
    )


def _soft_nearest(temperature: float) -> Row:
    return lambda p, n: _lse(-np.concatenate([p, n]) / temperature) - _lse(-p / temperature)


def _lifted(p: Any, n: Any, d: np.ndarray, y: np.ndarray, among: np.ndarray) -> float:
    own = [_lse(np.concatenate([1 - d[n], 1 - among[j, y != y[j]]])) for j in p]
    return sum(max(o + d[j], 0) ** 2 / 2 for o, j in zip(own, p, strict=True))


def _swapped(p: Any, n: Any, d: np.ndarray, y: np.ndarray, among: np.ndarray) -> float:
    far, near = p[np.argmax(d[p])], n[np.argmin(d[n])]
    return max(d[far] - min(d[near], among[far, near]) + 0.2, 0)


def _angular(p: Any, n: Any, d: np.ndarray, y: np.ndarray, among: np.ndarray) -> float:
    t = np.tan(np.radians(40.0)) ** 2
    return sum(
        _softplus(_lse(4 * t * (2 - d[n] - among[j, n]) - 2 * (1 + t) * (1 - d[j]))) for j in p
    )


def _tuplet_margin(p: np.ndarray, n: np.ndarray) -> float:
    near = np.cos(np.arccos(1 - p) - np.radians(5.73))
    return sum(_softplus(_lse(64 * (1 - n)) - 64 * one) for one in near)


def _triplet(p: np.ndarray, n: np.ndarray) -> float:
    beyond = n[n > p.max()]
    return max(p.max() - (beyond.min() if len(beyond) else n.max()) + 0.2, 0)


def _triplets(p: np.ndarray, n: np.ndarray) -> list[float]:
    return [max(a - b + 0.2, 0) for a in p for b in n]


def _all_semi_hard(p: np.ndarray, n: np.ndarray) -> float:
    negative = [n[n > a].min() if (n > a).any() else n.max() for a in p]
    return sum(max(a - b + 0.2, 0) for a, b in zip(p, negative, strict=True))


def _margins(p: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.array([[max(a - 1.0, 0), max(1.4 - b, 0)] for a in p for b in n])


def _fast_ap(p: np.ndarray, n: np.ndarray) -> float:
    def histogram(d: np.ndarray) -> np.ndarray:
        # Few bins: two roundings of a distance next to an edge have different gradients.
        return np.array([np.maximum(1 - abs(d - e) * 0.75, 0).sum() for e in np.arange(4) / 0.75])

    positives, every = np.cumsum(histogram(p)), np.cumsum(histogram(p) + histogram(n))
    terms = [h * a / b for h, a, b in zip(histogram(p), positives, every, strict=True) if b > 0]
    return 1 - sum(terms) / len(p)


def _before(s: np.ndarray, own: float) -> float:
    return float((1 / (1 + np.exp(-(s - own) / 0.1))).sum())


def _smooth_ap(p: np.ndarray, n: np.ndarray) -> float:
    ranks = [1 + _before(-np.delete(p, i), -one) for i, one in enumerate(p)]
    every = [rank + _before(-n, -one) for rank, one in zip(ranks, p, strict=True)]
    return 1 - float(np.mean(np.divide(ranks, every)))


def _pnp(penalty: Callable[[np.ndarray], np.ndarray]) -> Row:
    return lambda p, n: float(np.mean(penalty(np.array([_before(-n, -one) for one in p]))))


def _ranked_list(p: np.ndarray, n: np.ndarray) -> float:
    near, far = (gap[gap > 0] for gap in (p - 0.8, 1.2 - n))
    return 0.5 * float(
        sum(np.average(gap, weights=np.exp(10 * gap)) for gap in (near, far) if len(gap))
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
        for distance in ("inner_product", "manhattan", "snr")
    ),
    Case("pair_contrastive", _made(losses.PairContrastiveLoss), _pair_contrastive, "euclidean"),
    Case("multi_similarity", _made(losses.MultiSimilarityLoss), _multi_similarity(2.0, 50.0)),
    Case(
        "multi_similarity_mined",
        _made(losses.MultiSimilarityLoss, alpha=3.0, beta=20.0, epsilon=0.1),
        _multi_similarity(3.0, 20.0, 0.1),
    ),
    Case("sup_con", _made(losses.SupConLoss), _sup_con(0.1)),
    Case("nt_xent_cold", _made(losses.NTXentLoss, temperature=0.005), _nt_xent(0.005)),
    Case(
        "soft_nearest_neighbor",
        _made(losses.SoftNearestNeighborLoss, temperature=0.2),
        _soft_nearest(0.2),
    ),
    Case(
        "lifted",
        _made(losses.LiftedStructureLoss),
        _lifted,
        "euclidean",
        count=lambda p, n: float(len(p)),
        among_references=True,
    ),
    Case(
        "generalized_lifted",
        _made(losses.GeneralizedLiftedStructureLoss),
        lambda p, n: max(_lse(p) + _lse(1 - n), 0),
        "euclidean",
    ),
    Case(
        "angular",
        _made(losses.AngularLoss),
        _angular,
        count=lambda p, n: float(len(p)),
        among_references=True,
    ),
    Case(
        "tuplet_margin",
        _made(losses.TupletMarginLoss),
        _tuplet_margin,
        count=lambda p, n: float(len(p)),
    ),
    Case("triplet", _made(losses.TripletLoss), _triplet),
    Case(
        "triplet_swap",
        _made(losses.TripletLoss, negatives="hard", swap=True),
        _swapped,
        among_references=True,
    ),
    Case(
        "triplet_all",
        _made(losses.TripletLoss, positives="all", negatives="all"),
        lambda p, n: sum(_triplets(p, n)),
        count=lambda p, n: float(sum(t > 0 for t in _triplets(p, n))),
    ),
    Case(
        "triplet_all_semi_hard",
        _made(losses.TripletLoss, positives="all", distance="euclidean"),
        _all_semi_hard,
        "euclidean",
        count=lambda p, n: float(len(p)),
    ),
    Case(
        "margin",
        _made(losses.MarginLoss),
        lambda p, n: float(_margins(p, n).sum()),
        "euclidean",
        count=lambda p, n: float((_margins(p, n) > 0).sum()),
    ),
    Case(
        "fast_ap",
        _made(losses.FastAPLoss, bins=3, normalize=False),
        _fast_ap,
        "squared_euclidean",
    ),
    Case("smooth_ap", _made(losses.SmoothAPLoss, temperature=0.1), _smooth_ap),
    *(
        Case(
            f"pnp_{variant}",
            _made(losses.PNPLoss, variant=variant, temperature=0.1),
            _pnp(penalty),
        )
        for variant, penalty in (
            ("O", lambda r: r),
            ("Dq", lambda r: 1 - 1 / (1 + r)),
        )
    ),
    Case(
        "ranked_list",
        _made(losses.RankedListLoss, positive_temperature=10.0, normalize=False),
        _ranked_list,
        "euclidean",
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
    """Loss of each anchor by the case's equation, with plain loops, and what a mean counts of it.

    That is its number of terms, 1 for most losses, and 0 for an invalid anchor.
    """
    r = x if ref_x is None else ref_x
    d = distances(x, r, case.distance)
    among = distances(r, r, case.distance) if case.among_references else d
    ref_y = y if ref_y is None else ref_y
    rows, counted = np.zeros(len(y)), np.zeros(len(y))
    for i in range(len(y)):
        same = ref_y == y[i]
        negative = ~same
        if remove_diagonal and i < len(ref_y):
            same[i] = False
        if not (same.any() and negative.any()):
            continue
        counted[i] = case.count(d[i, same], d[i, negative])
        if case.among_references:
            positives, negatives = np.flatnonzero(same), np.flatnonzero(negative)
            rows[i] = case.row(positives, negatives, d[i], ref_y, among)
        else:
            rows[i] = case.row(d[i, same], d[i, negative])
    return rows, counted


def batch(
    n: int, d: int = 8, classes: int = 5, seed: int = 0, dtype: str = "float32"
) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n] and embeddings [n, d] of unit norm."""
    rng = np.random.default_rng([seed, n])
    x = rng.normal(size=(n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return rng.integers(0, classes, n), x.astype(dtype)


# One loss of each way to compute: tiles, blocks, two passes, loops over triplets, a sum of pairs,
# a sum over positives.
FORMS = [
    case
    for case in CASES
    if case.name
    in ("circle", "circle_snr", "lifted", "triplet_all_semi_hard", "sup_con", "smooth_ap")
]


# The losses of a test of the engine. PyTorch compiles nothing, and takes all. JAX and TensorFlow
# compile each loss anew: there every loss is in the tests of its equation and of a compiled step.
ENGINE = CASES if keras.backend.backend() == "torch" else FORMS
every_form = pytest.mark.parametrize("case", ENGINE, ids=str)


def with_forms(common: list[tuple], more: list[tuple]) -> list[Any]:
    """Parameters: the losses of the engine with `common` values, each form with `more` too."""
    rows = [(c, v) for c in ENGINE for v in common] + [(c, v) for c in FORMS for v in more]
    return [pytest.param(c, *v, id="-".join(map(str, (c, *v)))) for c, v in rows]
