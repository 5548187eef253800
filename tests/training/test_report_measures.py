"""The numbers behind the report, against loops, scikit-learn and planted faults."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from kinfold.training.report import measures
from kinfold.training.report.measures import Neighbourhood

pytestmark = pytest.mark.once


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)).astype("float32")


def some(sizes: tuple[int, ...], noise: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings that are the class plus noise, and labels."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(len(sizes), dtype="int32"), sizes)
    means = rng.normal(size=(len(sizes), 5))
    return unit(means[y] + noise * rng.normal(size=(len(y), 5))), y


def test_recall_curve_is_that_of_a_loop() -> None:
    x, y = some((3, 1, 5, 4, 6))
    similarity = x @ x.T
    np.fill_diagonal(similarity, -np.inf)
    queries = [i for i in range(len(y)) if (y == y[i]).sum() > 1]
    expected = {
        k: np.mean([(y[np.argsort(-similarity[i])[:k]] == y[i]).any() for i in queries])
        for k in (1, 2, 4, 8, 16)
    }
    assert measures.recall_curve(x, y) == pytest.approx(expected)


def test_gallery_shows_the_worst() -> None:
    angles = np.radians([0, 10, 1, 40, 44, 90, 91, 130, 200])
    y = np.array([0, 0, 1, 1, 2, 3, 3, 2, 4])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    groups = {group.title: group for group in measures.gallery(Neighbourhood.of(x, y))}
    worst = groups["Worst"].queries
    # All of these have nothing right. 0 and 2 are nearest, but one confusion: 0 alone is shown.
    assert [q.index for q in worst] == [0, 3, 7]
    assert worst[0].similarities[0] == pytest.approx(np.cos(np.radians(1)), abs=1e-6)
    assert (worst[0].found, worst[0].relevant) == (0, 1)
    assert worst[0].neighbours.tolist() == [2, 1, 3, 4, 5, 6, 7, 8]
    # Example 1 is second, after a wrong one; after it nothing is left to find.
    assert worst[0].states == ["wrong", "right"] + ["over"] * 6
    assert "6 of 8" in groups["Worst"].rule
    shown = [q.index for group in groups.values() for q in group.queries]
    assert 8 not in shown  # alone in its class
    assert max(Counter(shown).values()) == 1


@pytest.mark.parametrize("limit", [10_000, 300])
def test_similarities_are_those_of_a_loop(limit: int) -> None:
    x, y = some((20, 1, 13, 2, 16))
    i, j = np.triu_indices(len(y), 1)
    values, same = (x[i] * x[j]).sum(axis=1), y[i] == y[j]
    got = measures.similarities(x, y, limit=limit)
    assert (got.positive_pairs, got.negative_pairs) == (same.sum(), (~same).sum())
    auc = roc_auc_score(same, values)
    if limit == 10_000:
        np.testing.assert_allclose(np.sort(got.positive), np.sort(values[same]), atol=1e-6)
        np.testing.assert_allclose(np.sort(got.negative), np.sort(values[~same]), atol=1e-6)
        assert got.separation() == pytest.approx(auc)
    else:  # a sample: members of the same sets, and about the same answer
        assert np.abs(got.positive[:, None] - values[same]).min(axis=1).max() < 1e-6
        assert np.abs(got.negative[:, None] - values[~same]).min(axis=1).max() < 1e-6
        assert got.separation() == pytest.approx(auc, abs=0.05)


def test_examples_of_the_map() -> None:
    y = np.repeat(np.arange(50), 8)
    chosen = measures.some_examples(y, 100)
    assert len(chosen) == len(set(chosen.tolist())) == 100
    assert sorted(Counter(y[chosen].tolist()).values())[1:] == [8] * 12  # whole classes
    few = measures.some_examples(np.repeat(np.arange(50), 8), 100, classes=3)
    assert len(set(y[few].tolist())) == 3
    assert len(measures.some_examples(np.repeat([0, 1], 500), 100)) == 100


def test_map_keeps_clusters_apart_and_repeats() -> None:
    rng = np.random.default_rng(0)
    means = np.eye(3, 6)
    y = np.repeat([0, 1, 2], 12)
    x = unit(means[y] + 0.05 * rng.normal(size=(36, 6)))
    points = measures.plane(x)
    assert points.min() == 0
    assert points.max() == 1
    np.testing.assert_array_equal(points, measures.plane(x))
    collapsed = np.ones((8, 3))
    np.testing.assert_array_equal(measures.plane(collapsed), measures.plane(collapsed))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (y[distance.argmin(axis=1)] == y).all()


def test_grid_gives_each_a_place_of_its_own_nearby() -> None:
    points = np.random.default_rng(0).random((60, 2))
    cells = measures.on_grid(points, 12, 10)
    placed = cells[:, 0] >= 0
    assert placed.sum() >= 55
    assert len({tuple(cell) for cell in cells[placed].tolist()}) == placed.sum()
    assert np.abs(cells[placed] - points[placed] * (11, 9)).max() <= 2.5
    assert (measures.on_grid(np.full((30, 2), 0.5), 9, 9)[:, 0] >= 0).sum() == 25


def test_typical_queries_come_before_the_worst() -> None:
    x, y = some((6,) * 12, noise=1.0)
    titles = [group.title for group in measures.gallery(Neighbourhood.of(x, y))]
    assert titles == ["Typical", "Worst", "Good"]


def test_confusions_are_those_of_a_loop() -> None:
    x, y = some((6, 1, 9, 7, 4), noise=1.2)
    similarity = x.astype("float64") @ x.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = similarity.argmax(axis=1)
    counts = Counter(
        (int(y[i]), int(y[nearest[i]])) for i in range(len(y)) if (y == y[i]).sum() > 1
    )
    expected = {
        (a, b): (counts[a, b], counts[b, a])
        for a, b in combinations(range(5), 2)
        if counts[a, b] + counts[b, a]
    }
    found = measures.confusions(Neighbourhood.of(x, y))
    assert len(expected) > 3
    got = {}
    for pair in found:
        assert pair.wrong[0] >= pair.wrong[1]
        assert tuple(y[list(pair.example)]) == pair.classes
        i, j = pair.example
        assert nearest[i] == j or nearest[j] == i
        assert pair.queries == tuple((y == c).sum() for c in pair.classes)
        order = slice(None, None, 1 if pair.classes[0] < pair.classes[1] else -1)
        got[tuple(sorted(pair.classes))] = pair.wrong[order]
    assert got == expected
    totals = [sum(pair.wrong) for pair in found]
    assert totals == sorted(totals, reverse=True)
    assert measures.confusions(Neighbourhood.of(x, y), limit=2) == found[:2]


@pytest.mark.parametrize("rate", [0.01, 0.001])
@pytest.mark.parametrize("rounded", [False, True])  # rounded similarities have ties
def test_accept_rates_are_those_of_scikit_learn(rate: float, rounded: bool) -> None:
    x, y = some((20,) * 5, noise=0.8)
    pairs = measures.similarities(x, y)
    if rounded:
        pairs = measures.Similarities(
            pairs.positive.round(2), pairs.negative.round(2), *(len(pairs.positive),) * 2
        )
    same = np.r_[np.ones(len(pairs.positive)), np.zeros(len(pairs.negative))]
    values = np.r_[pairs.positive, pairs.negative]
    false, true, thresholds = roc_curve(same, values, drop_intermediate=False)
    allowed = np.flatnonzero(false <= rate)[-1]
    got = pairs.accepts(rate)
    assert got is not None
    assert got.found == pytest.approx(true[allowed])
    assert got.threshold == pytest.approx(thresholds[allowed])
    # What the threshold does, by its definition.
    assert (pairs.positive >= got.threshold).mean() == pytest.approx(got.found)
    assert (pairs.negative >= got.threshold).sum() == got.wrongly <= rate * len(pairs.negative)


def test_a_rate_under_one_pair_cannot_be_measured() -> None:
    x, y = some((10,) * 5)
    pairs = measures.similarities(x, y)
    assert len(pairs.negative) == 1000
    assert pairs.accepts(0.001) is not None
    assert pairs.accepts(0.0009) is None
    equal = measures.Similarities(np.ones(10, "float32"), np.ones(1000, "float32"), 10, 1000)
    found = equal.accepts(0.01)
    assert found is not None
    assert (found.found, found.threshold) == (0.0, None)


def test_planted_duplicates_are_found() -> None:
    x, y = some((6,) * 8)
    rng = np.random.default_rng(1)
    raw = unit(rng.normal(size=(48, 30)) + 5.0)  # an offset must not make all alike
    classes = [f"class {label}" for label in y]
    nothing = measures.duplicates(x, lambda i: raw[i], classes, {})
    assert (nothing.shown, nothing.pairs) == ([], 0)

    x[13], raw[13] = x[2], raw[2]  # a copy in another class
    x[30], raw[30] = x[20], unit(raw[20:21] + 0.002 * rng.normal(size=(1, 30)))[0]  # nearly
    x[1], raw[1] = x[0], raw[0]  # a copy in the same class is none of ours
    x[40] = x[34]  # alike to the model alone
    other_x, other_raw = x[5:8].copy(), raw[5:8].copy()
    others = {"training": measures.Other(other_x, lambda i: other_raw[i], ["a", "a", "b"])}
    found = measures.duplicates(x, lambda i: raw[i], classes, others)
    assert found.compared == {"": (48, 48), "training": (3, 3)}
    pairs = {(pair.split, pair.index, pair.other) for pair in found.shown}
    assert pairs == {
        ("", 2, 13),
        ("", 20, 30),
        ("training", 5, 0),
        ("training", 6, 1),
        ("training", 7, 2),
    }
    assert found.pairs == found.groups == 5
    by_index = {pair.index: pair for pair in found.shown}
    assert by_index[2].difference == 0.0
    gap = ((raw[20] - raw[30]) ** 2).sum() / (2 * raw.var(axis=0).sum())
    assert by_index[20].difference == pytest.approx(gap, rel=1e-3)
    assert found.shown[-1].index == 20
    assert by_index[20].similarity == pytest.approx(1.0, abs=1e-6)


def test_duplicates_of_the_same_two_classes_are_one_entry() -> None:
    x, y = some((4, 4))
    x[4:], raw = x[:4], np.tile(np.eye(4, dtype="float32"), (2, 1))
    found = measures.duplicates(x, lambda i: raw[i], [str(label) for label in y], {}, limit=1)
    assert (len(found.shown), found.groups, found.pairs) == (1, 1, 4)
    assert found.shown[0].pairs == 4


def test_many_examples_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinfold.training.report.measures.copies.MOST", 10)
    x, y = some((6,) * 8)
    found = measures.duplicates(x, lambda i: x[i], [str(label) for label in y], {})
    assert found.compared == {"": (10, 48)}


def test_planted_wrong_labels_are_found() -> None:
    x, y = some((12,) * 6, noise=0.1)
    wrong = {3: 4, 40: 0}
    for index, label in wrong.items():
        y[index] = label
    found, total = measures.suspects(Neighbourhood.of(x, y))
    assert total == 2
    assert {suspect.index for suspect in found} == {3, 40}
    for suspect in found:
        truth = suspect.index // 12
        assert suspect.label == truth
        assert y[suspect.witness] == truth
        similarity = x @ x[suspect.index]
        similarity[suspect.index] = -np.inf
        nearest = y[np.argsort(-similarity)[:10]]
        assert suspect.other == np.mean(nearest == truth) == 1.0
        assert suspect.own == 0.0
        rest = []
        for i in np.flatnonzero(y == y[suspect.index]):
            similarity = x @ x[i]
            similarity[i] = -np.inf
            if i != suspect.index:
                rest.append(np.mean(y[np.argsort(-similarity)[:10]] == y[i]))
        assert suspect.score == pytest.approx(np.mean(rest))


def test_classes_confused_as_a_whole_are_not_called_mislabelled() -> None:
    x, _ = some((24,) * 3, noise=0.1)
    y = np.arange(72) % 6  # each place is shared by classes: all labels may be right
    assert measures.suspects(Neighbourhood.of(x, y)) == ([], 0)
