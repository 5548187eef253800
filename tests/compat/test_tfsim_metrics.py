"""What TensorFlow Similarity computes of lookups, feature maps and batches."""

import json
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from kinfold.compat import tensorflow_similarity as tfsim
from kinfold.compat.tensorflow_similarity.types import Lookup

GOLDEN = dict(np.load(Path(__file__).parent.parent / "golden" / "tfsim_metrics.npz"))
CASES = json.loads(str(GOLDEN["cases"]))
RETRIEVAL = [case for case in CASES if "retrieval" in case]
CALIBRATION = [(at, case) for at, case in enumerate(CASES) if "calibration" in case]


@pytest.mark.once
@pytest.mark.parametrize("case", RETRIEVAL, ids=lambda case: f"{case['retrieval']}")
def test_a_retrieval_metric_gives_the_number_of_the_peer(case: dict[str, Any]) -> None:
    kwargs = dict(case["kwargs"])
    if "r" in kwargs:
        kwargs["r"] = dict(enumerate(kwargs["r"]))
    metric = getattr(tfsim.retrieval_metrics, case["retrieval"])(**kwargs)
    value = metric.compute(
        query_labels=GOLDEN["labels"],
        lookup_labels=GOLDEN["neighbours"],
        lookup_distances=GOLDEN["distances"],
        match_mask=GOLDEN["neighbours"] == GOLDEN["labels"][:, None],
    )
    assert value == pytest.approx(case["value"], rel=1e-6, abs=1e-9)
    assert metric.name == str(metric) == case["name"]
    again = type(metric)(**metric.get_config())
    assert again.get_config() == metric.get_config()


def lookups(width: int) -> list[list[Lookup]]:
    rows = zip(GOLDEN["distances"][:, :width], GOLDEN["neighbours"][:, :width], strict=True)
    return [
        [Lookup(i + 1, float(d), int(y)) for i, (d, y) in enumerate(zip(*row, strict=True))]
        for row in rows
    ]


@pytest.mark.once
@pytest.mark.parametrize(
    ("at", "case"), CALIBRATION, ids=[f"{c['calibration']} {c['matcher']}" for _, c in CALIBRATION]
)
def test_a_calibration_gives_the_numbers_of_the_peer(at: int, case: dict[str, Any]) -> None:
    make = tfsim.classification_metrics.make_classification_metric
    others = {"recall", "precision", "f1", "binary_accuracy", "npv", "fpr"} - {case["calibration"]}
    found = tfsim.evaluators.MemoryEvaluator().calibrate(
        target_labels=GOLDEN["labels"],
        lookups=lookups(case["width"]),
        thresholds_targets={"some": 0.6, "most": 0.85, "more than all": 1.5},
        calibration_metric=make(case["calibration"]),
        matcher=case["matcher"],
        extra_metrics=[make(one) for one in others],
        verbose=0,
    )
    for name, column in found.thresholds.items():
        np.testing.assert_allclose(column, GOLDEN[f"{at}/{name}"], rtol=1e-6, err_msg=name)
    assert found.cutpoints.keys() == case["cutpoints"].keys()
    assert "more than all" not in found.cutpoints
    for name, cutpoint in case["cutpoints"].items():
        assert found.cutpoints[name].pop("name") == cutpoint.pop("name") == name
        assert found.cutpoints[name] == pytest.approx(cutpoint, rel=1e-6)


@pytest.mark.once
def test_bad_metrics_are_refused_in_a_sentence() -> None:
    metrics, classes = tfsim.retrieval_metrics, tfsim.classification_metrics
    mask = np.ones((3, 2), bool)
    with pytest.raises(ValueError, match=r"recall@5 looks at 5 neighbours.*Received\s2"):
        metrics.RecallAtK().compute(query_labels=np.arange(3), match_mask=mask)
    with pytest.raises(ValueError, match="row for each query"):
        metrics.RecallAtK(k=1).compute(query_labels=np.arange(4), match_mask=mask)
    with pytest.raises(ValueError, match='pass average="micro"'):
        metrics.MapAtK(average="macro")
    with pytest.raises(ValueError, match="must be one of"):
        metrics.RecallAtK(average="weighted")
    with pytest.raises(ValueError, match="Unknown retrieval metric"):
        metrics.make_retrieval_metric("auc@5")
    with pytest.raises(ValueError, match="Unknown classification metric"):
        classes.make_classification_metric("auc")
    with pytest.raises(TypeError, match="name or a ClassificationMetric"):
        classes.make_classification_metric(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Unknown matcher"):
        tfsim.matchers.make_classification_matcher("nearest")
    matcher = tfsim.matchers.MatchNearest()
    with pytest.raises(AttributeError, match="compile"):
        matcher.compute_count(np.arange(3), np.ones((3, 1)), np.ones((3, 1)))
    with pytest.raises(AttributeError, match="compute_count"):
        _ = matcher.tp
    matcher.compile()
    with pytest.raises(ValueError, match="a row for each of the 3 query labels"):
        matcher.compute_count(np.arange(3), np.ones((2, 1)), np.ones((2, 1)))
    assert metrics.make_retrieval_metric("map@7").name == "map@7"


@pytest.mark.once
def test_thresholds_in_any_order_give_values_in_the_order_of_the_distances() -> None:
    evaluate = tfsim.evaluators.MemoryEvaluator().evaluate_classification
    given = {
        "query_labels": np.array([0, 1, 2]),
        "lookup_labels": np.array([[0], [1], [0]]),
        "lookup_distances": np.array([[0.1], [0.5], [0.3]]),
        "metrics": [tfsim.classification_metrics.BinaryAccuracy()],
        "matcher": "match_nearest",
    }
    found = evaluate(distance_thresholds=np.array([1.0, 0.2]), **given)
    assert found["distance"].tolist() == pytest.approx([0.2, 1.0])
    assert found["binary_accuracy"].tolist() == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.once
def test_missing_neighbours_match_nothing() -> None:
    rows = [[Lookup(1, 0.5, 7), Lookup(2, 0.75, None)], [Lookup(1, 0.25, 7)]]
    with pytest.warns(UserWarning, match="1 of 2 queries have fewer than 2 neighbours"):
        labels = tfsim.utils.unpack_lookup_labels(rows)
    assert (labels == 7).tolist() == [[True, False], [True, False]]
    with pytest.warns(UserWarning, match="fewer"):
        distances = tfsim.utils.unpack_lookup_distances(rows)
    assert distances.tolist() == [[0.5, 0.75], [0.25, math.inf]]
    assert rows[0][0] == Lookup(1, 0.5, 7)
    assert rows[0][0] != Lookup(1, 0.5, 7, np.ones(2))


@pytest.mark.parametrize("p", [3.0, 1.0, 0.0, -2.0, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["1D", "2D"])
def test_pooling_gives_the_numbers_of_the_peer(kind: str, p: float, tmp_path: Path) -> None:
    make = getattr(tfsim.layers, f"GeneralizedMeanPooling{kind}")
    x = GOLDEN["steps" if kind == "1D" else "maps"]
    expected = GOLDEN[f"pooled {kind} {p}"]
    last = x.ndim - 1
    got = ops.convert_to_numpy(make(p=p)(x))
    # The powers of the peer are in float32 too.
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)
    first = make(p=p, data_format="channels_first", keepdims=True)
    moved = ops.convert_to_numpy(first(np.moveaxis(x, last, 1)))
    assert moved.shape == (*expected.shape, *[1] * (last - 1))
    np.testing.assert_allclose(moved.reshape(expected.shape), expected, rtol=2e-5, atol=2e-6)
    assert first.compute_output_shape(np.moveaxis(x, last, 1).shape) == moved.shape
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(first)))
    assert keras.saving.deserialize_keras_object(config).get_config() == first.get_config()


def test_pooling_refuses_what_it_cannot_take() -> None:
    with pytest.raises(TypeError, match="`p` must be a number"):
        tfsim.layers.GeneralizedMeanPooling2D("many")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected ndim=4"):
        tfsim.layers.GeneralizedMeanPooling2D()(np.ones((2, 3, 4), "float32"))


@pytest.mark.parametrize("distance", ["cosine", "l2", "l1"])
def test_training_metrics_give_the_numbers_of_the_peer(distance: str) -> None:
    metrics, y, x = tfsim.training_metrics, GOLDEN["ids"], GOLDEN["embeddings"]
    positive, negative = (
        GOLDEN[f"{distance} {anchor} {mined}"]
        for anchor, mined in (("positive", "max"), ("negative", "min"))
    )
    expected = {
        "max_pos": positive.max(),
        "avg_pos": positive.mean(),
        "min_pos": positive.min(),
        "sum_pos": positive.sum(),
        "max_neg": negative.max(),
        "avg_neg": negative.mean(),
        "min_neg": negative.min(),
        "sum_neg": negative.sum(),
        "dist_gap": abs(negative.min() - positive.max()),
    }
    for name, value in expected.items():
        metric = getattr(metrics, name)(distance)
        # Its distance of a row from itself is the root of a rounding error.
        least = 5e-4 if (name, distance) == ("min_pos", "l2") else 3e-6
        assert float(metric(y, x)) == pytest.approx(value, rel=1e-4, abs=least), name
        config = keras.saving.serialize_keras_object(metric)
        assert float(keras.saving.deserialize_keras_object(config)(y, x)) == float(metric.result())
        metric.reset_state()
        assert float(metric.result()) == 0
    for anchor, mined in (("positive", "min"), ("negative", "max")):
        easy = metrics.DistanceMetric(
            distance, "sum", anchor, None, positive_mining_strategy="easy",
            negative_mining_strategy="easy",
        )  # fmt: skip
        found = GOLDEN[f"{distance} {anchor} {mined}"].sum()
        assert float(easy(y, x)) == pytest.approx(found, rel=1e-4)


def test_training_metrics_in_fit() -> None:
    model = keras.Sequential([keras.Input((3,)), tfsim.layers.MetricEmbedding(4)])
    metrics = [tfsim.training_metrics.dist_gap("cosine"), tfsim.training_metrics.avg_neg("cosine")]
    model.compile("sgd", tfsim.losses.TripletLoss(), metrics=metrics)
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    y = np.arange(8) % 3
    logs = model.fit(x, y, batch_size=8, epochs=1, verbose=0).history
    assert 0 < logs["mean_neg"][0] < 2
    assert 0 <= logs["dist_gap"][0] < 2
    with pytest.raises(ValueError, match="takes no `sample_weight`"):
        metrics[0].update_state(y, x, np.ones(8))


def test_the_schedule_rises_and_falls() -> None:
    schedule = tfsim.schedules.WarmupCosineDecay(0.1, 100, 20, alpha=0.01)
    steps = np.array([0, 5, 19, 20, 60, 100, 200])
    share = np.clip((steps - 20) / 80, 0, 1)
    falling = 0.1 * (0.99 * (1 + np.cos(np.pi * share)) / 2 + 0.01)
    expected = np.where(steps < 20, 0.1 * steps / 20, falling)
    got = [float(ops.convert_to_numpy(schedule(int(step)))) for step in steps]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-8)
    again = type(schedule)(**schedule.get_config())
    assert again.get_config() == schedule.get_config()
    with pytest.raises(ValueError, match="less than `total_steps`"):
        tfsim.schedules.WarmupCosineDecay(0.1, 20, 20)


def test_the_layer_that_follows_the_spread_of_directions() -> None:
    layer = tfsim.layers.ActivationStdLoggingLayer(name="std")
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(4)])
    model.compile("sgd", "mse")
    model.fit(x, x, batch_size=8, epochs=1, shuffle=False, verbose=0)
    rows = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = np.mean([rows[:8].std(0).mean(), rows[8:].std(0).mean()])
    assert float(layer.result()) == pytest.approx(expected, rel=1e-4)
    model.predict(x, verbose=0)
    assert float(layer.result()) == pytest.approx(expected, rel=1e-4)
    layer.reset_state()
    assert float(layer.result()) == 0
