"""The published values of the peers, in values and gradients."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops

from kinfold import losses
from kinfold.compat.tensorflow_addons import losses as tfa
from kinfold.compat.tensorflow_similarity import losses as tfsim
from native import assert_close, float64, value_and_gradients

GOLDEN = Path(__file__).parent / "golden"


class Golden:
    """One case of a golden file."""

    def __init__(self, file: str, case: dict[str, Any]) -> None:
        self.case = case
        self.id = f"{file}-{case['name']}-{case.get('loss', 'Circle')}"
        self._prefix = case["name"] + "/"
        with np.load(GOLDEN / f"{file}.npz") as f:
            self._arrays = {
                key.removeprefix(self._prefix): f[key] for key in f if key.startswith(self._prefix)
            }

    def __getitem__(self, key: str) -> np.ndarray:
        return self._arrays[key]

    def get(self, key: str) -> np.ndarray | None:
        return self._arrays.get(key)

    def __str__(self) -> str:
        return self.id


def cases(file: str, names: set[str] | None = None) -> list[Golden]:
    with np.load(GOLDEN / f"{file}.npz") as f:
        table = json.loads(str(f["cases"]))
    return [Golden(file, c) for c in table if names is None or c.get("loss") in names]


def check(fn: Any, arrays: list[np.ndarray], value: Any, gradients: list[Any], rtol: float) -> None:
    got, got_gradients = value_and_gradients(fn, *arrays)
    assert_close(got, value, rtol, "value")
    for i, (gradient, expected) in enumerate(zip(got_gradients, gradients, strict=True)):
        assert_close(gradient, expected, rtol, f"gradient {i}")


# Keras 3.15 turns float64 into float32 where a Python number meets it (the file's rows are
# float32), hence 1e-5 in both.
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-5)])
@pytest.mark.parametrize("golden", cases("keras_circle"), ids=str)
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
            rows, _ = value_and_gradients(lambda x: loss.call(golden["y"], x), x)
            assert_close(rows, golden["rows"], rtol, "rows")
            check(
                lambda x: loss(golden["y"], x, golden.get("weight")),
                [x],
                golden["value"],
                [golden["dx"]],
                rtol,
            )


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-11)])
@pytest.mark.parametrize("golden", cases("pml", {"CircleLoss"}), ids=str)
def test_pytorch_metric_learning_circle(golden: Golden, dtype: str, rtol: float) -> None:
    kwargs = golden.case["kwargs"]
    refs = golden.case["refs"]
    with float64():
        # References there hold no anchor, so none is removed.
        loss = losses.CircleLoss(
            kwargs["gamma"],
            kwargs["m"],
            detach_weights=True,
            normalize=True,
            remove_diagonal=not refs,
            dtype=dtype,
        )
        x = golden["x"].astype(dtype)
        if refs:
            check(
                lambda x, r: loss(golden["y"], x, ref_labels=golden["ref_y"], ref_embeddings=r),
                [x, golden["ref_x"].astype(dtype)],
                golden["value"],
                [golden["dx"], golden["dref"]],
                rtol,
            )
        else:
            check(lambda x: loss(golden["y"], x), [x], golden["value"], [golden["dx"]], rtol)


def legacy(source: str, loss: str) -> list[Golden]:
    return [g for g in cases("tf_legacy", {loss}) if g.case["source"] == source]


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-5)])
@pytest.mark.parametrize("golden", legacy("tfsim", "CircleLoss"), ids=str)
def test_tensorflow_similarity_circle(golden: Golden, dtype: str, rtol: float) -> None:
    kwargs = golden.case["kwargs"]
    with float64():
        x = golden["x"].astype(dtype)
        loss = tfsim.CircleLoss(**kwargs, reduction="none", dtype=dtype)
        check(lambda x: loss(golden["y"], x), [x], golden["rows"], [golden["dx"]], rtol)
        mean = tfsim.CircleLoss(**kwargs, dtype=dtype)
        for weight, key in ((None, "value"), (golden["weight"], "weighted_value")):
            value, _ = value_and_gradients(lambda x, w=weight: mean(golden["y"], x, w), x)
            assert_close(value, golden[key], rtol, key)


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
