"""The range of images: how it is chosen, and what is done to images of another. No backend."""

import numpy as np
import pytest

from kinfold.encoders.scaling import Scaling, kind_of


def images(low: float, high: float, dtype: str = "float32") -> np.ndarray:
    x = np.linspace(low, high, 2 * 3 * 3 * 2).reshape(2, 3, 3, 2)
    return (np.rint(x) if np.dtype(dtype).kind in "iu" else x).astype(dtype)


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (images(0, 255, "uint8"), "bytes"),
        (images(0, 1, "uint8"), "bytes"),
        (images(0, 255), "bytes"),
        (images(0, 1.5, "float16"), "bytes"),
        (images(0, 255, "int64"), "bytes"),
        (images(0, 1), "unit"),
        (images(0, 1, "float64"), "unit"),
        (images(0, 1, "int32"), "unit"),
        (images(0, 0), "unit"),
        (images(-1, 1), "standardised"),
        (images(0, 65535, "uint16"), "standardised"),
        (images(-80, 0, "float16"), "standardised"),
    ],
)
def test_the_kind_follows_from_type_and_range(x: np.ndarray, kind: str) -> None:
    assert kind_of(x) == kind
    scaling = Scaling.of(x)
    assert scaling.kind == kind
    assert Scaling.from_config(scaling.get_config()) == scaling


def test_standardised_holds_mean_and_deviation_of_each_channel() -> None:
    x = np.random.default_rng(0).normal([-40.0, 7.0], [15.0, 0.1], (50, 6, 7, 2)).astype("float32")
    scaling = Scaling.of(x)
    np.testing.assert_allclose(scaling.mean, x.mean((0, 1, 2), "float64"), rtol=1e-9)
    np.testing.assert_allclose(scaling.deviation, x.std((0, 1, 2), "float64"), rtol=1e-6)
    x[..., 1] = 300.0
    assert Scaling.of(x).deviation[1] == 1.0  # a constant channel has no scale


def test_other_images_are_converted_where_it_can_be_done_in_one_way_only() -> None:
    whole, unit, parts = images(0, 255, "uint8"), images(0, 1), images(0, 254.5)
    for scaling, x, factor in (
        (Scaling(), whole, None),
        (Scaling(), parts, None),
        (Scaling(), unit, 255.0),
        (Scaling("unit"), unit, None),
        (Scaling("unit"), whole, 1 / 255),
        (Scaling("unit"), whole.astype("float32"), 1 / 255),
    ):
        converted, note = scaling.convert(x, "DATA")
        np.testing.assert_allclose(converted, x * (factor or 1.0), rtol=1e-6)
        assert bool(note) == (factor is not None)
        assert factor is None or note.startswith("The images of DATA lie from 0 to ")
    wide = Scaling.of(images(-80, 0))
    for scaling, x, message in (
        (Scaling(), images(-1, 1), "from -1 to 1 .*takes images with values from 0 to 255. Save"),
        (Scaling("unit"), images(0, 1.2), "from 0 to 1.2 .*takes images with values from 0 to 1"),
        (Scaling("unit"), parts, "from 0 to 254.5 "),
        (wide, whole, r"\(uint8\); the model takes images of floating numbers, which it stand"),
    ):
        with pytest.raises(ValueError, match=message):
            scaling.convert(x, "DATA")
    assert wide.convert(images(-70, -1), "DATA")[1] == ""
    assert "far from training" in wide.convert(images(0, 900), "DATA")[1]


def test_doubtful_images_of_the_same_data_are_told() -> None:
    unit, beyond, whole = images(0, 1), images(0, 1.25), images(0, 255, "uint8")
    notes = Scaling("unit").notes(unit, {"validation": unit, "test": beyond})
    assert notes == [
        "The model takes images with values from 0 to 1.",
        "The test images reach from 0 to 1.25, those to train on lie from 0 to 1: are they of one "
        "unit? They are taken as they are.",
    ]
    assert len(Scaling().notes(whole, {"test": whole})) == 1
    assert "nearly black" in Scaling().notes(whole // 255, {})[1]


@pytest.mark.parametrize(
    "config",
    [None, [], {}, {"kind": "bits", "mean": [], "deviation": []},
     {"kind": "standardised", "mean": ["a"], "deviation": [1]},
     {"kind": "standardised", "mean": [0.0], "deviation": [0.0]}],
)  # fmt: skip
def test_a_damaged_scaling_is_refused(config: object) -> None:
    with pytest.raises(ValueError, match="a scaling is one of bytes, unit, standardised"):
        Scaling.from_config(config)
