"""The gain of a head over raw embeddings: its numbers, its interval, and what is said of it."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap

from kinfold.datasets import Split
from kinfold.metrics import retrieval_metrics
from kinfold.training import evaluation, raw_input, sources
from kinfold.training.evaluation import gain, measure, measure_in_gallery
from kinfold.training.verdicts import (
    comparison_text,
    few_classes,
    gain_text,
    kept_text,
    seen_in_training,
    shared_text,
    table_text,
)

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


def test_a_gain_is_said_in_points_and_a_model_that_is_no_better_is_called_so() -> None:
    assert judged(0.0431, 0.0312, 0.055) == (
        "Gain over the raw input: recall@1 +4.31 points (95% of resamples of the classes: "
        "+3.12 to +5.50), 50% of what was missing to 1; map@r +4.31 points (95% of resamples of "
        "the classes: +3.12 to +5.50), 50% of what was missing to 1."
    )
    worse, here = "is worse than the raw input: use", "worse than the raw input on these classes,"
    same, unsure = "is no better than the raw input", "It is not certain"
    assert worse in judged(-0.02, -0.03, -0.01)
    assert worse in judged(-0.02, -0.03, -0.01, ranked=(0.01, -0.01, 0.02))
    assert here in judged(-0.01, None, None)
    assert same in judged(0.0, 0.0, 0.0)
    assert same in judged(0.0, None, None)
    assert same in judged(0.01, -0.01, 0.02)
    assert same in judged(-0.01, -0.03, 0.02)
    assert unsure in judged(0.01, None, None)
    assert unsure in judged(-0.01, -0.02, 0.01, ranked=(0.02, 0.01, 0.03))
    assert unsure in judged(-0.02, -0.03, -0.01, ranked=(0.02, 0.01, 0.03))
    assert len(judged(0.01, -0.01, 0.02, ranked=(0.02, 0.01, 0.03)).splitlines()) == 1


def test_measure_gives_the_scores_of_the_metrics_and_their_gain() -> None:
    y = np.repeat(np.arange(12, dtype="int32"), 4)
    x = (RNG.normal(size=(12, 5))[y] + RNG.normal(size=(48, 5))).astype("float32")
    better = (x + 2 * np.eye(12, 5)[y]).astype("float32")
    split = Split(x, y, tuple("abcdefghijkl"))
    table, gained, sampled = measure(split, x, better, lambda: raw_input.pixels(x))
    assert sampled is None
    names = tuple(evaluation.METRICS)
    assert table["raw"] == pytest.approx(retrieval_metrics(x, y, metrics=names))
    assert table["trained"] == pytest.approx(retrieval_metrics(better, y, metrics=names))
    for name in names:
        rise = table["trained"][name] - table["raw"][name]
        assert gained[name]["difference"] == pytest.approx(rise)
    assert "gain" in table_text(table, gained)
    same = table_text(*measure(split, x, 3 * x, lambda: raw_input.pixels(x))[:2])
    assert "is no better than the raw input" in same.splitlines()[-1]


def test_images_have_pixels_and_a_gain_with_its_interval() -> None:
    y = np.repeat(np.arange(10, dtype="int32"), 2)
    x = RNG.integers(0, 256, (20, 3, 3, 1), dtype=np.uint8)
    vectors = np.eye(10, dtype="float32")[y]
    raw = raw_input.pixels(x)
    table, gained, _ = measure(Split(x, y, tuple("abcdefghij")), vectors, vectors, lambda: raw)
    assert table.keys() == {"pixels", "untrained", "trained"}
    assert table["trained"]["map@r"] == 1.0
    for name, values in gained.items():
        assert values["difference"] == pytest.approx(1.0 - table["pixels"][name])
        assert values["low"] is not None
        assert values["low"] < values["difference"] < values["high"]
    rows = [line.split()[0] for line in table_text(table, gained).splitlines()[1:6]]
    assert rows == ["pixels", "before", "trained", "gain", "Gain"]


def numbered(*names: str, each: int = 2, x: np.ndarray | None = None) -> Split:
    y = np.repeat(np.arange(len(names), dtype="int32"), each)
    return Split(np.eye(len(names), dtype="float32")[y] if x is None else x, y, names)


def test_a_gallery_is_matched_by_the_names_of_classes() -> None:
    queries, gallery = numbered("a", "b", "lonely"), numbered("other", "b", "a", each=1)
    x = gallery.x[[2, 2, 1, 0, 0, 0]]  # one of "b" lies on "other"
    all_rows = np.arange(len(queries)), np.arange(len(gallery))
    models = {"untrained": (x, gallery.x), "trained": (x, gallery.x)}
    raw = raw_input.pixels(x), raw_input.pixels(gallery.x)
    split = Split(x, queries.y, queries.names)
    table, gained, _ = measure_in_gallery(split, models, gallery, raw, all_rows)
    assert table["raw"] == {"recall@1": 0.75, "map@r": 0.75, "mrr": pytest.approx((3 + 5 / 12) / 4)}
    assert gained["map@r"]["difference"] == 0.0
    assert shared_text(queries, gallery) == [
        "Classes in both, by name: 2.",
        "Classes that the gallery does not hold: 1. Their examples are no queries: 2.",
        "Classes of the gallery that no query has: 1.",
    ]
    assert shared_text(gallery, gallery) == ["Classes in both, by name: 3."]


def test_few_classes_are_told_with_a_number_that_does() -> None:
    names = [str(k) for k in range(60)]
    said = few_classes(numbered(*names[:5]), numbered(*names[5:8]))
    assert said.startswith("Few classes: 5 to train on and 3 to test on.")
    total = int(said.split(" classes in all would do.")[0].split()[-1])
    for classes, enough in ((total, True), (total - 1, False)):
        test = round(sources._TEST * classes)
        train = classes - test - round(sources._VALIDATION * (classes - test))
        parts = numbered(*names[:train]), numbered(*names[train : train + test])
        assert (few_classes(*parts) == "") == enough


def test_classes_that_were_trained_on_are_not_called_unseen() -> None:
    train = numbered("a", "b")
    assert seen_in_training(train, numbered("c", "d")) == "classes unseen in training"
    assert seen_in_training(train, numbered("b", "c")) == "1 of these 2 classes also trained on"


def test_a_model_that_is_not_of_an_epoch_is_told_loudly() -> None:
    scores = {"raw": 0.9, "start": 0.8, "trained": 0.7}
    said = kept_text("raw", scores, 20)
    assert said.startswith("Training made it worse: model.keras holds the raw input")
    assert said.endswith("val_map@r is 0.9000; the best of 20 epochs has 0.7000.")
    equal = kept_text("start", {"raw": 0.6, "start": 0.8, "trained": 0.8}, 3)
    assert equal.startswith("Training was not worth it: model.keras holds the network as it was")
    assert kept_text("trained", {"raw": 0.1, "start": 0.2, "trained": 0.3}, 3) == ""


def test_two_models_are_compared_in_words() -> None:
    def said(*values: float | None, ranked: tuple[float | None, ...] | None = None) -> str:
        keys = ("difference", "low", "high", "errors_removed")
        rows = ((*values, 0.5), (*(ranked or values), 0.5))
        both = [dict(zip(keys, row, strict=True)) for row in rows]
        return comparison_text({"recall@1": both[0], "map@r": both[1]})[1]

    assert said(0.02, 0.01, 0.03) == "The second is better."
    assert said(-0.02, -0.03, -0.01) == "The second is worse."
    assert said(0.0, -0.01, 0.01).startswith("These classes cannot tell them apart")
    assert said(0.02, 0.01, 0.03, ranked=(-0.02, -0.03, -0.01)) == (
        "The two metrics disagree: recall@1 is better; map@r is worse."
    )
    assert said(0.02, None, None) == "There is no interval: it needs 10 classes with queries."
