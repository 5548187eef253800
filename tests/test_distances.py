"""The six distances, against one pair at a time in float64."""

import keras
import numpy as np
import pytest
from keras import ops

from cases import batch
from cases import distances as expected
from kinfold import distances
from kinfold.numerics import softplus, unit_rows
from native import assert_close, float64, value_and_gradients

NAMES = ["cosine", "euclidean", "squared_euclidean", "inner_product", "manhattan", "snr"]


@pytest.mark.parametrize("name", NAMES)
def test_values(name: str) -> None:
    x, r = batch(9, dtype="float64")[1], batch(4, seed=1, dtype="float64")[1]
    if name != "cosine":
        x, r = 3 * x, 2 * r
    with float64():
        d = ops.convert_to_numpy(distances.get(name)(x, r))
        assert d.dtype == np.float64  # nothing on the way narrows it
    assert_close(d, expected(x, r, name), 1e-12)
    single = ops.convert_to_numpy(distances.get(name)(x.astype("float32"), r.astype("float32")))
    assert_close(single, expected(x, r, name), 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_at_coinciding_and_zero_rows(name: str) -> None:
    x = batch(3)[1]
    x[2] = 0.0
    d, gradients = value_and_gradients(distances.get(name), x, x.copy())
    assert np.all(np.isfinite(d))
    assert all(np.all(np.isfinite(g)) for g in gradients)


@keras.saving.register_keras_serializable("tests")
class Chebyshev(distances.Distance):
    name = "chebyshev"

    def pairwise(self, x, r):
        return ops.max(ops.abs(ops.expand_dims(x, 1) - ops.expand_dims(r, 0)), axis=-1)


def test_get_takes_a_name_an_instance_and_a_config() -> None:
    for name in NAMES:
        distance = distances.get(name)
        assert distance.name == name
        assert distances.get(distance) is distance
        assert distances.get({"name": name}) is distance
        assert distances.get(distances.serialize(distance)) is distance
    own = distances.get(distances.serialize(Chebyshev()))
    assert isinstance(own, Chebyshev)
    assert float(own(np.zeros((1, 2), "float32"), np.array([[3, -4]], "float32"))[0, 0]) == 4.0


def test_a_loss_keeps_a_distance_of_your_own() -> None:
    from kinfold.losses import CircleLoss

    loss = CircleLoss(distance=Chebyshev())
    again = CircleLoss.from_config(loss.get_config())
    y, x = batch(8)
    assert float(again(y, x)) == float(loss(y, x)) > 0


def test_softplus_to_the_last_digit() -> None:
    x = np.array([-700.0, -40.0, -1.0, 0.0, 1.0, 25.0, 40.0, 800.0])
    with float64():
        value, (slope,) = value_and_gradients(softplus, x)
    assert np.abs(value / np.logaddexp(0.0, x) - 1).max() < 1e-15
    assert_close(slope, 1 / (1 + np.exp(-x)), 1e-15)


def test_unit_rows() -> None:
    x = np.array([[3.0, 4.0], [0.0, 0.0], [1e-15, 0.0], [3e30, 4e30]], "float32")
    y, (dx,) = value_and_gradients(unit_rows, x)
    assert_close(y, [[0.6, 0.8], [0.0, 0.0], [1.0, 0.0], [0.6, 0.8]], 1e-6)
    assert np.all(np.isfinite(dx))
    assert np.all(dx[1] == 0)
