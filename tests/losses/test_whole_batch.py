"""Losses that are no mean over anchors: of all pairs of the batch, or of its graph."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kinfold
from cases import batch
from kinfold import losses
from kinfold.losses import manifold
from native import assert_close, float64, number, on, value_and_gradients

Kinds = list[tuple[float, bool, int]]  # similarity, whether of one kind, and the anchor


@dataclass(frozen=True)
class Case:
    """A loss, and its value from the pairs of a batch and the weights of their anchors."""

    name: str
    build: Callable[..., losses.PairLoss]
    value: Callable[[Kinds, np.ndarray], float]

    def __str__(self) -> str:
        return self.name


def _histogram(pairs: Kinds, weights: np.ndarray, bins: int = 6) -> float:
    nodes = np.linspace(-1, 1, bins + 1)

    def shares(s: float) -> np.ndarray:
        return np.maximum(1 - abs(s - nodes) * bins / 2, 0)

    positives = sum((shares(s) for s, same, _ in pairs if same), np.zeros(bins + 1))
    below = np.cumsum(positives) / max(np.sum(positives), 1)
    negatives = [(shares(s), i) for s, same, i in pairs if not same]
    return sum(weights[i] * share @ below for share, i in negatives) / max(len(negatives), 1)


def _threshold(pairs: Kinds, weights: np.ndarray) -> float:
    near = [(weights[i], 0.7 - s) for s, same, i in pairs if same and s <= 0.7]
    far = [(weights[i], s - 0.2) for s, same, i in pairs if not same and s >= 0.2]
    return _mean(near) + 3 * _mean(far)


def _variance(pairs: Kinds, weights: np.ndarray) -> float:
    total = 0.0
    for kind in (True, False):
        some = [(s, i) for s, same, i in pairs if same is kind]
        mean = np.mean([s for s, _ in some]) if some else 0.0
        excess = [(0.9 * mean - s if kind else s - 1.1 * mean, i) for s, i in some]
        total += _mean([(weights[i], max(gap, 0) ** 2) for gap, i in excess])
    return total


def _mean(weighted: list[tuple[float, float]]) -> float:
    return float(np.mean([w * value for w, value in weighted])) if weighted else 0.0


CASES = [
    Case("histogram", lambda **k: losses.HistogramLoss(**{"bins": 6} | k), _histogram),
    Case(
        "threshold_consistent_margin",
        lambda **k: losses.ThresholdConsistentMarginLoss(0.3, 0.8, 1.0, 3.0, **k),
        _threshold,
    ),
    Case(
        "intra_pair_variance",
        lambda **k: losses.IntraPairVarianceLoss(0.1, 0.1, **k),
        _variance,
    ),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)
F64 = {"dtype": "float64"}


def expected(
    case: Case,
    y: Any,
    x: Any,
    ref_y: Any = None,
    ref_x: Any = None,
    weights: Any = None,
    remove_diagonal: bool = True,
) -> float:
    r, of = (x, y) if ref_x is None else (ref_x, ref_y)
    weights = np.ones(len(y)) if weights is None else weights
    pairs = [
        (float(x[i] @ r[j]), bool(y[i] == of[j]), i)
        for i in range(len(x))
        for j in range(len(r))
        if not (remove_diagonal and i == j and y[i] == of[j])
    ]
    return case.value(pairs, weights)


@every_case
@pytest.mark.parametrize("block_size", [None, 5])
def test_value_with_references_and_weights(case: Case, block_size: int | None) -> None:
    y, x = batch(13, dtype="float64")
    ref_y, ref_x = batch(17, seed=1, dtype="float64")
    weights = np.linspace(0.2, 2, 13)
    loss = case.build(block_size=block_size, **F64)
    with float64():
        assert_close(number(loss(y, x)), expected(case, y, x), 1e-12)
        got = number(loss(y, x, weights, ref_labels=ref_y, ref_embeddings=ref_x))
        assert_close(got, expected(case, y, x, ref_y, ref_x, weights), 1e-12)
        some = np.arange(17) % 3 > 0
        given = {"ref_labels": ref_y, "ref_embeddings": ref_x, "ref_mask": some}
        right = expected(case, y, x, ref_y[some], ref_x[some], remove_diagonal=False)
        got = number(case.build(remove_diagonal=False, **F64)(y, x, **given))
        assert_close(got, right, 1e-12)


@every_case
def test_gradient_against_differences(case: Case) -> None:
    y, x = batch(9, d=4, classes=3, dtype="float64")
    loss = case.build(block_size=4, normalize=False, **F64)
    direction = np.random.default_rng(1).normal(size=x.shape)
    with float64():
        _, (gradient,) = value_and_gradients(lambda x: loss(y, x), x)
        up, down = (number(loss(y, x + s * 1e-6 * direction)) for s in (1, -1))
    assert_close(np.sum(gradient * direction), (up - down) / 2e-6, 1e-6)


@every_case
def test_roads_and_several_labels(case: Case) -> None:
    y, x = batch(13)
    loss = case.build()
    right, (dx,) = value_and_gradients(on("one_block", lambda x: loss(y, x)), x)
    hot = np.eye(5, dtype="int32")[y]
    for of in (
        on("blocks", lambda x: loss(y, x)),
        lambda x: loss(hot, x),
        lambda x: loss(y[:, None] == y, x),
    ):
        value, (gradient,) = value_and_gradients(of, x)
        assert_close(value, right, 2e-6)
        assert_close(gradient, dx, 2e-5)


@every_case
def test_reductions(case: Case) -> None:
    y, x = batch(13)
    rows = ops.convert_to_numpy(case.build(reduction="none")(y, x))
    assert rows.shape == (13,)
    total = number(case.build(reduction="sum")(y, x))
    assert_close(rows.sum(), total, 1e-5)
    negatives = np.sum(y[:, None] != y) if case.name == "histogram" else 1.0
    assert_close(total / negatives, number(case.build()(y, x)), 1e-5)


@every_case
def test_batches_of_one_kind_or_none(case: Case) -> None:
    y, x = batch(6)
    for labels, rows in ((np.zeros(6, int), x), (np.arange(6), x), (y[:0], x[:0]), (y[:1], x[:1])):
        value, (gradient,) = value_and_gradients(
            lambda x, labels=labels: case.build()(labels, x), rows
        )
        right = expected(case, labels, rows) if len(rows) else 0.0
        assert_close(value, right, 1e-5)
        assert np.all(np.isfinite(gradient))
    bad = x.copy()
    bad[2, 1] = np.inf
    assert np.isnan(number(case.build(normalize=True)(y, bad)))


@every_case
def test_config_and_fit(case: Case) -> None:
    loss = case.build(reduction="sum")
    kept = type(loss).from_config(loss.get_config())
    y, x = batch(12, d=6)
    assert number(kept(y, x)) == number(loss(y, x))
    model = keras.Sequential([kinfold.layers.L2Embedding(4)])
    model.compile("sgd", loss=case.build(normalize=True))
    history = model.fit(x, y, batch_size=6, verbose=0)
    assert np.isfinite(history.history["loss"][0])


def test_manifold_loss() -> None:
    """Its values are in the golden table of compat; here is what Kinfold adds."""
    y, x = batch(12, classes=3)
    loss = losses.ManifoldLoss(3, 8, context_weight=0.5, reduction="none")
    assert loss.trainable_variables
    rows = ops.convert_to_numpy(loss(y, x))
    weights = np.linspace(0, 1, 12)
    assert_close(ops.convert_to_numpy(loss(y, x, weights)), rows * weights, 1e-5)
    kept = losses.ManifoldLoss.from_config(loss.get_config())
    kept.trainable_variables[0].assign(loss.trainable_variables[0])
    assert_close(ops.convert_to_numpy(kept(y, x)), rows, 1e-6)
    with pytest.raises(ValueError, match=r"inverts a matrix.*8,192.*Received 8,190 embeddings"):
        loss(np.zeros(manifold.MOST - 2, int), np.ones((manifold.MOST - 2, 8), "float32"))
    with pytest.raises(ValueError, match="`alpha` must be below 1"):
        losses.ManifoldLoss(3, 2, alpha=1)


def test_manifold_loss_in_fit() -> None:
    y, x = batch(12, d=6, classes=3)
    inputs = keras.Input((6,))
    model = kinfold.EmbeddingModel(inputs, keras.layers.Dense(4)(inputs))
    loss = losses.ManifoldLoss(3, 4)
    model.compile("sgd", loss)
    before = ops.convert_to_numpy(loss.trainable_variables[0])
    history = model.fit(x, y, batch_size=6, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    assert not np.array_equal(before, ops.convert_to_numpy(loss.trainable_variables[0]))
