"""The gain of a head over raw embeddings: its numbers, its interval, and what is said of it."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap

from kinfold import evaluation
from kinfold.datasets import Split
from kinfold.evaluation import gain, gain_text, measure, table_text
from kinfold.metrics import retrieval_metrics

RNG = np.random.default_rng(0)


def scores(classes: int, rise: float) -> tuple[Any, Any, np.ndarray]:
    """Hits of queries in classes of 1 to 9 that succeed or fail together, before and after."""
    y = np.repeat(np.arange(classes), RNG.integers(1, 10, classes))
    luck = RNG.normal(size=(2, classes))[:, y]
    raw, trained = (luck + RNG.normal(size=luck.shape) > [[0.0], [-rise]]).astype(float)
    return {"map@r": raw}, {"map@r": trained}, y


def test_the_interval_is_that_of_scipy_over_classes() -> None:
    raw, trained, y = scores(150, 0.3)
    values = gain(raw, trained, y * 7)["map@r"]
    change = trained["map@r"] - raw["map@r"]
    assert values["difference"] == pytest.approx(change.mean())
    assert values["errors_removed"] == pytest.approx(change.mean() / (1 - raw["map@r"].mean()))
    expected = bootstrap(
        (np.bincount(y, change), np.bincount(y)),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=1,
    ).confidence_interval
    width = expected.high - expected.low
    assert values["low"] == pytest.approx(expected.low, abs=0.06 * width)
    assert values["high"] == pytest.approx(expected.high, abs=0.06 * width)
    assert gain(raw, trained, y) == gain(raw, trained, y)


def test_what_is_not_defined_is_none() -> None:
    few = gain(*scores(9, 0.5))["map@r"]
    assert (few["low"], few["high"]) == (None, None)
    ones = {"mrr": np.ones(4)}
    assert gain(ones, ones, np.arange(4))["mrr"] == {
        "difference": 0.0, "errors_removed": None, "low": None, "high": None
    }  # fmt: skip


def judged(*recall: float | None, ranked: tuple[float | None, ...] | None = None) -> str:
    keys = ("difference", "low", "high", "errors_removed")
    values = dict(zip(keys, (*recall, 0.5), strict=True))
    others = dict(zip(keys, (*(ranked or recall), 0.5), strict=True))
    return "\n".join(gain_text({"recall@1": values, "map@r": others}))


def test_a_gain_is_said_in_points_and_a_head_that_is_no_better_is_called_so() -> None:
    assert judged(0.0431, 0.0312, 0.055) == (
        "Gain over the raw embeddings: recall@1 +4.31 points (95% of resamples of the classes: "
        "+3.12 to +5.50), 50% of what was missing to 1; map@r +4.31 points (95% of resamples of "
        "the classes: +3.12 to +5.50), 50% of what was missing to 1."
    )
    worse, unsure = "keep the raw ones.", "It is not certain"
    assert worse in judged(-0.02, -0.03, -0.01)
    assert worse in judged(0.0, 0.0, 0.0)
    assert worse in judged(-0.01, None, None)
    assert worse in judged(-0.02, -0.03, -0.01, ranked=(0.01, -0.01, 0.02))
    assert unsure in judged(0.01, -0.01, 0.02)
    assert unsure in judged(0.01, None, None)
    assert unsure in judged(-0.02, -0.03, -0.01, ranked=(0.02, 0.01, 0.03))
    assert len(judged(0.01, -0.01, 0.02, ranked=(0.02, 0.01, 0.03)).splitlines()) == 1


def test_measure_gives_the_scores_of_the_metrics_and_their_gain() -> None:
    y = np.repeat(np.arange(12, dtype="int32"), 4)
    x = (RNG.normal(size=(12, 5))[y] + RNG.normal(size=(48, 5))).astype("float32")
    better = (x + 2 * np.eye(12, 5)[y]).astype("float32")
    split = Split(x, y, tuple("abcdefghijkl"))
    table, gained = measure(split, x, better)
    names = tuple(evaluation.METRICS)
    assert table["raw"] == pytest.approx(retrieval_metrics(x, y, metrics=names))
    assert table["trained"] == pytest.approx(retrieval_metrics(better, y, metrics=names))
    for name in names:
        rise = table["trained"][name] - table["raw"][name]
        assert gained[name]["difference"] == pytest.approx(rise)
    assert "gain" in table_text(table, gained)
    same = table_text(*measure(split, x, 3 * x))
    assert same.endswith("not better than the raw embeddings: keep the raw ones.")


def test_images_have_pixels_and_no_gain() -> None:
    y = np.array([0, 0, 1, 1], "int32")
    x = RNG.integers(0, 256, (4, 3, 3, 1), dtype=np.uint8)
    vectors = RNG.normal(size=(4, 2)).astype("float32")
    table, gained = measure(Split(x, y, ("a", "b")), vectors, vectors)
    assert table.keys() == {"pixels", "untrained", "trained"}
    assert gained == {}
    rows = [line.split()[0] for line in table_text(table).splitlines()[1:]]
    assert rows == ["pixels", "before", "trained"]
