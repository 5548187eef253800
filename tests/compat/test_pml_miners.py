"""The miners of pytorch-metric-learning: what they choose, and how they look at a large batch."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from cases import batch
from golden_cases import Golden, cases
from kinfold.compat.pytorch_metric_learning import distances, losses, miners, mining
from native import float64, number

MINERS = [golden for golden in cases("pml_arguments") if "miner" in golden.case]
# Fewer distances at once than a batch has: several blocks.
several_blocks = pytest.mark.parametrize("held", [mining.HELD, 40], ids=["one", "several"])


def mined(miner: Any, *given: Any) -> tuple[np.ndarray, ...]:
    return tuple(ops.convert_to_numpy(part) for part in miner(*given))


def assert_same(got: Any, right: Any) -> None:
    """The same pairs or triplets as often, in any order."""
    assert len(got) == len(right)
    sides = ((0, 1), (2, 3)) if len(got) == 4 else ((0, 1, 2),)
    for side in sides:
        ours, theirs = (sorted(zip(*(part[i] for i in side), strict=True)) for part in (got, right))
        assert ours == theirs


@several_blocks
@pytest.mark.parametrize("golden", MINERS, ids=lambda golden: golden.case["miner"])
def test_the_peers_choice(golden: Golden, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "HELD", held)
    kwargs = dict(golden.case["kwargs"])
    if golden.case["distance"]:
        name, given = golden.case["distance"]
        kwargs["distance"] = getattr(distances, name)(**given)
    miner = getattr(miners, golden.case["miner"])(**kwargs)
    y, x = golden["y"], golden["x"]
    with float64():
        alone, given = mined(miner, x, y), mined(miner, x, y, golden["ref_x"], golden["ref_y"])
    assert_same(alone, [golden[f"t{i}"] for i in range(len(alone))])
    assert_same(given, [golden[f"ref_t{i}"] for i in range(len(given))])


@several_blocks
def test_negatives_drawn_by_distance(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "HELD", held)
    y, x = batch(12)
    miner = miners.DistanceWeightedMiner(nonzero_loss_cutoff=1.3)
    keras.utils.set_random_seed(1)
    a, p, n = mined(miner, x, y)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert np.all((y[a] == y[p]) & (y[a] != y[n]) & (a != p))
    assert np.all(np.linalg.norm(unit[a] - unit[n], axis=1) < 1.3)
    keras.utils.set_random_seed(1)
    assert np.array_equal(mined(miner, x, y)[2], n)


def test_near_and_far_negatives_are_drawn_by_the_papers_weights() -> None:
    """q(d)^-1 = d^(2 - D) (1 - d^2 / 4)^((3 - D) / 2), from the cutoff on."""
    at = np.array([0.3, 0.8, 1.2])  # distances of three negatives from the anchor
    angle = 2 * np.arcsin(at / 2)
    x = np.zeros((5, 6), "float32")
    x[:2, 0] = 1
    x[2:, 0], x[2:, 1] = np.cos(angle), np.sin(angle)
    y = np.array([0, 0, 1, 2, 3])
    keras.utils.set_random_seed(0)
    drawn = np.concatenate([mined(miners.DistanceWeightedMiner(), x, y)[2] for _ in range(500)])
    d = np.maximum(at, 0.5)
    weight = d**-4.0 * (1 - d**2 / 4) ** -1.5
    share = np.bincount(drawn, minlength=5)[2:] / len(drawn)
    np.testing.assert_allclose(share, weight / weight.sum(), atol=0.03)


@several_blocks
def test_pairs_spread_over_a_histogram(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "HELD", held)
    y, x = batch(12)
    miner = miners.UniformHistogramMiner(num_bins=5, pos_per_bin=3, neg_per_bin=4)
    a, p, b, n = mined(miner, x, y)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    d = np.linalg.norm(unit[:, None] - unit, axis=-1)
    positive = (y[:, None] == y) & ~np.eye(12, dtype=bool)
    for i, j, mask, each in ((a, p, positive, 3), (b, n, y[:, None] != y, 4)):
        assert np.all(mask[i, j])
        edges = np.histogram_bin_edges(d[mask], 5)
        filled = np.histogram(d[mask], edges)[0] > 0
        found = np.histogram(d[i, j], edges)[0]
        assert np.array_equal(found, each * filled)


def test_a_loss_takes_what_a_miner_chose() -> None:
    y, x = batch(12)
    miner = miners.TripletMarginMiner(margin=0.05)
    chosen = miner(x, y)
    loss = losses.TripletMarginLoss(margin=0.05)
    np.testing.assert_allclose(number(loss(x, y, chosen)), number(loss(x, y)), rtol=1e-5)


def test_triplets_in_the_batch() -> None:
    y, x = batch(12)
    a, p, n = mined(miners.EmbeddingsAlreadyPackagedAsTriplets(), x, y)
    assert [*zip(a, p, n, strict=True)] == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)]
    with pytest.raises(ValueError, match=r"three examples each\. Received 11"):
        miners.EmbeddingsAlreadyPackagedAsTriplets()(x[:11], y[:11])


def test_refused() -> None:
    with pytest.raises(ValueError, match='"semihard" lies beyond'):
        miners.BatchEasyHardMiner("semihard", "semihard")
    with pytest.raises(ValueError, match="type_of_triplets"):
        miners.TripletMarginMiner(type_of_triplets="some")
    with pytest.raises(ValueError, match="AngularMiner is written for"):
        miners.AngularMiner(distance=distances.CosineSimilarity())
