"""Thresholds against counts of all pairs, intervals against classes held out, and refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

import kinfold
from kinfold import thresholds
from kinfold.search import Index
from kinfold.thresholds import held_out, intervals, pairs, unknown
from kinfold.thresholds.curves import Curve, largest_with_far

pytestmark = pytest.mark.once


def embeddings(classes: int = 30, each: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Classes of different width, some of which lie near one another."""
    rng = np.random.default_rng(seed)
    groups = rng.normal(size=(10, 16))
    centres = groups[rng.integers(10, size=classes)] + rng.normal(size=(classes, 16))
    y = np.repeat(np.arange(classes), each)
    width = 0.6 * np.exp(0.4 * rng.normal(size=classes))
    x = centres[y] + width[y][:, None] * rng.normal(size=(len(y), 16))
    return x.astype(np.float32), y


def all_pairs(x: np.ndarray, y: np.ndarray, distance: str) -> tuple[np.ndarray, np.ndarray]:
    """float64 distances (smaller is closer) of all pairs, and whether each is of one class."""
    x = x.astype(np.float64)
    i, j = np.triu_indices(len(x), 1)
    if distance == "cosine":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        values = 1 - np.einsum("nd,nd->n", x[i], x[j])
    elif distance == "euclidean":
        values = np.linalg.norm(x[i] - x[j], axis=1)
    else:
        values = -np.einsum("nd,nd->n", x[i], x[j])
    return values, y[i] == y[j]


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "inner_product"])
@pytest.mark.parametrize("far", [0.2, 0.01, 0.001])
def test_the_false_accept_rate_is_the_largest_that_is_allowed(distance: str, far: float) -> None:
    x, y = embeddings()
    found = thresholds.calibrate(x, y, far, distance=distance)
    values, same = all_pairs(x, y, distance)
    limit = -found.distance if distance == "inner_product" else found.distance
    rate = np.mean(values[~same] <= limit)
    assert rate <= far
    assert rate > far - 2 / np.count_nonzero(~same)
    assert found.far == pytest.approx(rate, abs=1.5 / np.count_nonzero(~same))
    assert found.recall == pytest.approx(np.mean(values[same] <= limit), abs=2e-3)
    assert (found.per, found.classes, found.examples) == ("pair", 30, 240)
    farther = -0.1 if distance == "inner_product" else 0.1
    here = np.array([found.distance, found.distance + farther])
    assert found.accepts(here).tolist() == [True, False]


def test_recall_precision_and_f1_against_scikit_learn() -> None:
    x, y = embeddings()
    values, same = all_pairs(x, y, "cosine")
    precision, recall, limits = precision_recall_curve(same, -values)
    assert thresholds.calibrate(x, y, recall=0.9).distance == pytest.approx(
        -limits[np.flatnonzero(recall[:-1] >= 0.9)[-1]], abs=1e-5
    )
    wanted = np.flatnonzero(precision[:-1] >= 0.8)[0]
    found = thresholds.calibrate(x, y, precision=0.8)
    assert found.recall == pytest.approx(recall[wanted], abs=2e-3)
    assert found.precision >= 0.8
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = thresholds.calibrate(x, y, best_f1=True)
    assert 2 * best.precision * best.recall / (best.precision + best.recall) == pytest.approx(
        f1.max(), abs=1e-4
    )


def test_the_curve_against_scikit_learn() -> None:
    x, y = embeddings()
    curve = thresholds.calibrate(x, y).curve
    values, same = all_pairs(x, y, "cosine")
    far, recall, limits = roc_curve(same, -values, drop_intermediate=False)
    for k in range(0, len(curve.distance), 37):
        at = np.searchsorted(-limits, curve.distance[k] + 1e-6, side="right") - 1
        assert curve.far[k] == pytest.approx(far[at], abs=2e-4)
        assert curve.recall[k] == pytest.approx(recall[at], abs=2e-3)
    assert (np.diff(curve.far) >= 0).all()
    assert (np.diff(curve.recall) >= 0).all()
    assert np.isfinite(curve.f1).all()


@pytest.mark.parametrize(("classes", "share"), [(80, 0.5), (60, 0.6)])
def test_the_interval_holds_on_classes_that_were_held_out(classes: int, share: float) -> None:
    x, y = embeddings(classes, 6)
    inside = 0
    for seed in range(100):
        order = np.random.default_rng(seed).permutation(classes)
        here = np.isin(y, order[: int(share * classes)])
        found = thresholds.calibrate(x[here], y[here], 0.01)
        values, same = all_pairs(x[~here], y[~here], "cosine")
        assert found.interval is not None
        low, high = found.interval
        inside += low <= np.mean(values[~same] <= found.distance) <= high
    assert inside >= 90


def test_intervals_of_pairs_and_queries_narrow_with_the_classes() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for classes in (20, 320):
        accepted = rng.poisson(2, size=classes).astype(float)
        found = intervals.of_queries(accepted, np.full(classes, 100.0))
        assert found is not None
        widths.append(found[1] - found[0])
    assert widths[1] < widths[0] / 2
    assert intervals.of_queries(np.ones(9), np.full(9, 10.0)) is None
    assert intervals.of_pairs(np.ones((9, 9)), np.full(9, 10.0)) is None


def test_a_search_accepts_as_many_strangers_as_asked() -> None:
    """The rate is per unknown query at the size of the gallery, and not per pair."""
    x, y = embeddings(200, 6)
    rows = np.arange(0, len(x), 3)
    found = thresholds.calibrate_search(x[rows], y[rows], x, y, 0.05, own=rows)
    unit = x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True)
    table = 1 - unit[rows] @ unit.T
    strangers = np.where(y[rows, None] == y, np.inf, table).min(axis=1)
    assert np.mean(strangers <= found.distance) == pytest.approx(0.05, abs=1 / len(strangers))
    alike = (y[rows, None] == y) & (rows[:, None] != np.arange(len(x)))
    own = np.where(alike, table, np.inf).min(axis=1)
    right = (own < strangers) & (own <= found.distance)
    assert found.recall == pytest.approx(right.mean(), abs=1e-9)
    assert found.per == "unknown query"
    by_pairs = thresholds.calibrate(x, y, 0.05)
    assert np.mean(strangers <= by_pairs.distance) > 0.9  # what a rate per pair would do


def test_a_class_that_is_far_from_itself_is_still_searched() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 8)).astype(np.float32)
    y = np.arange(400) % 200  # two of each class, anywhere
    found = thresholds.calibrate_search(x, y, x, y, 0.1, own=np.arange(400))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    table = 1 - unit @ unit.T
    np.fill_diagonal(table, np.inf)
    alike = y[:, None] == y
    own, strangers = (np.where(side, table, np.inf).min(axis=1) for side in (alike, ~alike))
    assert found.recall == pytest.approx(np.mean((own < strangers) & (own <= found.distance)))


def test_ties_are_never_accepted_beyond_the_rate() -> None:
    other = np.sort(np.array([0.1, 0.2, 0.2, 0.2, 0.5], np.float32))
    assert np.count_nonzero(other <= np.float32(largest_with_far(other, 0.4))) == 1
    assert np.count_nonzero(other <= np.float32(largest_with_far(other, 0.8))) == 4
    assert np.count_nonzero(other <= np.float32(largest_with_far(other, 1.0))) == 5
    with pytest.raises(ValueError, match="less than one of the 5 distances"):
        largest_with_far(other, 0.1)


def test_a_sample_is_taken_of_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.repeat(np.arange(50), np.arange(4, 54))
    rows = pairs.drawn(y, 200)
    assert (np.bincount(y[rows], minlength=50) == 4).all()
    many = np.repeat(np.arange(1000), 3)
    assert set(np.bincount(many[pairs.drawn(many, 200)]).tolist()) == {0, 2}
    monkeypatch.setattr(pairs, "MOST", 100)
    x, labels = embeddings()
    assert thresholds.calibrate(x, labels).examples <= 100
    monkeypatch.setattr(unknown, "MOST", 50)
    assert thresholds.calibrate_search(x, labels, x, labels, 0.1).examples == 50


def test_rates_on_other_examples() -> None:
    x, y = embeddings()
    found = thresholds.calibrate(x, y)
    other, labels = embeddings(seed=1)
    far, recall = pairs.rates(found, other, labels)
    values, same = all_pairs(other, labels, "cosine")
    assert far == pytest.approx(np.mean(values[~same] <= found.distance), abs=1e-4)
    assert recall == pytest.approx(np.mean(values[same] <= found.distance), abs=2e-3)


def test_points_of_a_curve() -> None:
    curve = Curve.at(np.array([0.5]), np.array([0.1, 0.6]), np.array([0.4, 0.7, 0.8]))
    assert (curve.far[0], curve.recall[0], curve.precision[0]) == (1 / 3, 0.5, 0.5)


def test_held_out_classes_decide_for_an_index(tmp_path: Path) -> None:
    x, y = embeddings(60)
    names = tuple(f"class {k}" for k in range(60))
    held_out.HeldOut(x, y, names, "model").save(tmp_path / "held.npz")
    again = held_out.HeldOut.load(tmp_path / "held.npz")
    assert (again.names, again.model) == (names, "model")
    np.testing.assert_array_equal(again.embeddings, x)
    index = Index()
    index.add(x, labels=[names[k] for k in y])
    found = again.search(index, 0.05)
    direct = thresholds.calibrate_search(x, y, x, y, 0.05, own=np.arange(len(x)))
    assert (found.distance, found.recall) == (direct.distance, direct.recall)
    (tmp_path / "held.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match="is damaged"):
        held_out.HeldOut.load(tmp_path / "held.npz")


def test_an_index_without_labels_is_searched_strictly() -> None:
    x, y = embeddings(60)
    held = held_out.HeldOut(x, y, tuple(map(str, range(60))), "model")
    index = Index()
    index.add(x)
    with pytest.warns(UserWarning, match="have no labels"):
        found = held.search(index, 0.05)
    assert found.distance > 0
    labelled = Index()
    labelled.add(x, labels=[str(k) for k in y])
    assert found.distance < held.search(labelled, 0.05).distance
    with pytest.raises(ValueError, match="The index is empty"):
        held.search(Index())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"far": 0.1, "recall": 0.9}, "Ask for one of far, precision, recall and best_f1"),
        ({"far": 0.0}, "`far` must be above 0"),
        ({"recall": 1.5}, "`recall` must be above 0 and at most 1"),
        ({"far": 1e-9}, "is less than one of the"),
        ({"labels": np.zeros(240, int)}, "Received 1 classes"),
        ({"labels": np.arange(240)}, "the largest with 1"),
        ({"labels": np.zeros(3, int)}, "Received shapes"),
        ({"embeddings": np.full((240, 2), np.nan)}, "must be finite"),
    ],
)
def test_what_cannot_be_calibrated(given: dict[str, Any], message: str) -> None:
    x, y = embeddings()
    with pytest.raises(ValueError, match=message):
        thresholds.calibrate(**{"embeddings": x, "labels": y, **given})


def test_what_no_distance_gives() -> None:
    x, y = embeddings()
    shuffled = np.random.default_rng(0).permutation(y)
    with pytest.raises(ValueError, match="No distance gives a precision"):
        thresholds.calibrate(x, shuffled, precision=0.999)
    with pytest.raises(ValueError, match="has an item of another class"):
        thresholds.calibrate_search(x[:1], y[:1], x[1:3], y[1:3])


def test_it_is_there_by_name() -> None:
    assert kinfold.thresholds.calibrate is thresholds.calibrate


def test_a_class_that_is_far_in_rows_off_the_origin() -> None:
    rng = np.random.default_rng(0)
    r = (0.5 * rng.normal(size=(400, 8))).astype(np.float32)
    r[:, 0] += 10
    z = np.arange(400)
    z[-10:] = 999
    x, y = r[:30] + 0.01, np.full(30, 999)
    found = thresholds.calibrate_search(x, y, r, z, 1.0)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, r)]
    table = 1 - unit[0].astype(np.float64) @ unit[1].T
    own, strangers = table[:, -10:].min(axis=1), table[:, :-10].min(axis=1)
    assert found.recall == pytest.approx(np.mean(own < strangers), abs=1e-9)


def test_the_rate_that_is_proposed_is_enough() -> None:
    other = np.sort(np.random.default_rng(0).normal(size=700)).astype(np.float32)
    with pytest.raises(ValueError, match=r"ask for at least 0\.0015, or") as refused:
        largest_with_far(other, 1e-4)
    largest_with_far(other, float(str(refused.value).split("at least ")[1].split(",")[0]))


def test_zero_rows_are_far_from_all_whatever_lies_off_the_origin() -> None:
    x, y = embeddings()
    x = (10 + 0.1 * x).astype(np.float32)
    x[:3] = 0
    found = thresholds.calibrate(x, y, recall=1.0)
    assert found.distance == pytest.approx(1.0)  # a zero row and another of its class


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "inner_product"])
def test_false_non_match_rates(distance: str) -> None:
    x, y = embeddings()
    values, same = all_pairs(x, y, distance)
    found = thresholds.fnmr_at_fmr(x, y, (0.1, 0.01, 0.001), distance=distance)
    assert list(found) == [0.1, 0.01, 0.001]
    other = np.sort(values[~same])
    for fmr, fnmr in found.items():
        beyond = other[int(fmr * len(other))]  # the first that may not be accepted
        assert fnmr == pytest.approx(np.mean(values[same] >= beyond), abs=2 / same.sum())
        recall = thresholds.calibrate(x, y, fmr, distance=distance).recall
        assert fnmr == pytest.approx(1 - recall)
    with pytest.raises(ValueError, match=r"`fmr` must be above 0 and at most 1\. Received: 2"):
        thresholds.fnmr_at_fmr(x, y, (0.1, 2))
    with pytest.raises(ValueError, match="less than one of the"):
        thresholds.fnmr_at_fmr(x, y, (1e-9,))
