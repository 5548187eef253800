"""The published values of the peers, in values and gradients."""

import json
from typing import Any

import numpy as np
import pytest
from keras import ops

from golden_cases import Golden, cases
from kinfold import losses
from kinfold.compat.pytorch_metric_learning import losses as pml
from kinfold.compat.tensorflow_addons import losses as tfa
from kinfold.compat.tensorflow_similarity import losses as tfsim
from native import assert_close, float64, value_and_gradients


def check(fn: Any, arrays: list[np.ndarray], value: Any, gradients: list[Any], rtol: float) -> None:
    got, got_gradients = value_and_gradients(fn, *arrays)
    assert_close(got, value, rtol, "value")
    for i, (gradient, expected) in enumerate(zip(got_gradients, gradients, strict=True)):
        assert_close(gradient, expected, rtol, f"gradient {i}")


# Keras 3.15 turns float64 into float32 where a Python number meets it (the file's rows are
# float32), hence 1e-5 in both.
CIRCLE = cases("keras_circle")


@pytest.mark.parametrize(
    ("golden", "dtype", "rtol"),
    [*((g, "float64", 1e-5) for g in CIRCLE), *((g, "float32", 1e-5) for g in CIRCLE[::4])],
    ids=str,
)
def test_keras_circle(golden: Golden, dtype: str, rtol: float) -> None:
    c = golden.case
    with float64():
        loss = losses.CircleLoss(
            c["gamma"],
            c["margin"],
            remove_diagonal=c["remove_diagonal"],
            reduction=c["reduction"],
            dtype=dtype,
        )
        x = golden["x"].astype(dtype)
        if c["refs"]:
            check(
                lambda x, r: loss.call(golden["y"], x, golden["ref_y"], r),
                [x, golden["ref_x"].astype(dtype)],
                golden["rows"],
                [golden["dx"], golden["dref"]],
                rtol,
            )
        else:
            rows = ops.convert_to_numpy(loss.call(golden["y"], x))
            assert_close(rows, golden["rows"], rtol, "rows")
            check(
                lambda x: loss(golden["y"], x, golden.get("weight")),
                [x],
                golden["value"],
                [golden["dx"]],
                rtol,
            )


PML = [g for g in cases("pml") if "loss" in g.case]


@pytest.mark.parametrize(
    ("golden", "dtype", "rtol"),
    [*((g, "float64", 1e-9) for g in PML), *((g, "float32", 2e-5) for g in PML[:10])],
    ids=str,
)
def test_pytorch_metric_learning(golden: Golden, dtype: str, rtol: float) -> None:
    loss = getattr(pml, golden.case["loss"])(**golden.case["kwargs"])
    x = golden["x"].astype(dtype)
    with float64():
        if golden.case["refs"]:
            check(
                lambda x, r: loss(x, golden["y"], ref_emb=r, ref_labels=golden["ref_y"]),
                [x, golden["ref_x"].astype(dtype)],
                golden["value"],
                [golden["dx"], golden["dref"]],
                rtol,
            )
        else:
            check(lambda x: loss(x, golden["y"]), [x], golden["value"], [golden["dx"]], rtol)


def legacy(source: str, loss: str) -> list[Golden]:
    return [g for g in cases("tf_legacy", {loss}) if g.case["source"] == source]


TFSIM = ("CircleLoss", "TripletLoss", "PNLoss", "MultiSimilarityLoss", "SoftNearestNeighborLoss")


@pytest.mark.parametrize("golden", [g for n in TFSIM for g in legacy("tfsim", n)], ids=str)
def test_tensorflow_similarity(golden: Golden) -> None:
    """The values are float32 themselves, so that float64 comes no closer."""
    build, kwargs = getattr(tfsim, golden.case["loss"]), golden.case["kwargs"]
    y, x = golden["y"], golden["x"]
    loss, mean = build(**kwargs, reduction="none"), build(**kwargs)
    rows, (dx,) = value_and_gradients(lambda x: loss(y, x), x)
    assert_close(rows, golden["rows"], 1e-5, "rows")
    alone = (y[:, None] == y).sum(1) == 1
    # The peer takes an anchor without positives for its own hard positive, and its gradient of
    # max(1 - x.x, 0) there is -2x or 0 as x.x happens to round. It is along x: unit rows lose it.
    along = alone[:, None] * x if golden.case["kwargs"]["distance"] == "cosine" else 0.0 * x
    across = [g - (g * along).sum(1, keepdims=True) * along for g in (dx, golden["dx"])]
    assert_close(*across, 1e-5, "gradient")
    assert_close(ops.convert_to_numpy(mean(y, x)), golden["value"], 1e-5, "value")
    if (weight := golden.get("weight")) is not None:
        value = ops.convert_to_numpy(mean(y, x, weight))
        assert_close(value, golden["weighted_value"], 1e-5, "weighted value")


TFA = {
    "TripletSemiHardLoss": tfa.triplet_semihard_loss,
    "TripletHardLoss": tfa.triplet_hard_loss,
    "LiftedStructLoss": tfa.lifted_struct_loss,
}


@pytest.mark.parametrize("golden", [g for n in TFA for g in legacy("tfa", n)], ids=str)
def test_tensorflow_addons(golden: Golden) -> None:
    name, kwargs, y = golden.case["loss"], golden.case["kwargs"], golden["y"]
    loss = getattr(tfa, name)(**kwargs)
    check(lambda x: TFA[name](y, x, **kwargs), [golden["x"]], golden["value"], [golden["dx"]], 1e-5)
    assert_close(float(loss(y, golden["x"])), golden["value"], 1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        tfsim.TripletLoss("euclidean", "easy", "hard", margin=0.5),
        tfsim.PNLoss(margin=0.3),
        tfsim.MultiSimilarityLoss(alpha=3.0, lmda=0.4, center=0.9, epsilon=0.2),
        tfsim.SoftNearestNeighborLoss(temperature=0.5),
        tfa.TripletSemiHardLoss(0.7, "angular"),
        tfa.TripletHardLoss(0.7, soft=True, distance_metric="squared-L2"),
        tfa.LiftedStructLoss(0.8),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_configs_of_the_peers_names(loss: losses.PairLoss) -> None:
    config = json.loads(json.dumps(loss.get_config()))
    again = type(loss).from_config(config)
    assert again.get_config() == loss.get_config()
    y, x = np.array([0, 0, 1, 1, 2]), np.eye(5, 4, dtype="float32") + np.float32(0.1)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert float(again(y, x)) == float(loss(y, x))


@pytest.mark.parametrize("golden", legacy("tfa", "ContrastiveLoss"), ids=str)
def test_tensorflow_addons_contrastive(golden: Golden) -> None:
    loss = tfa.ContrastiveLoss(**golden.case["kwargs"])
    y, x = golden["y"], golden["x"]
    check(
        lambda x: tfa.contrastive_loss(y, x, **golden.case["kwargs"]),
        [x],
        golden["rows"],
        [golden["dx"]],
        1e-5,
    )
    assert_close(ops.convert_to_numpy(loss(y, x)), golden["value"], 1e-5)
    assert_close(ops.convert_to_numpy(loss(y, x, golden["weight"])), golden["weighted_value"], 1e-5)


def test_the_comparer_rejects_a_small_error() -> None:
    with pytest.raises(AssertionError, match="error"):
        assert_close([1.0, 2.0], [1.0, 2.0001], 1e-5)
    with pytest.raises(AssertionError, match="shape"):
        assert_close([1.0, 2.0], [[1.0, 2.0]], 1e-5)
    with pytest.raises(AssertionError, match="not finite"):
        assert_close([np.nan], [np.nan], 1e-5)
