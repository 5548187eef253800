"""The six distances, against one pair at a time in float64."""

import keras
import numpy as np
import pytest
from keras import ops

from cases import batch
from cases import distances as expected
from kinfold import distances
from kinfold.core.numerics import softplus, unit_rows
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


def _rows(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = 1e-3 * rng.standard_normal((80, 6))
    if kind == "offset":
        return (100 + noise).astype("float32")
    if kind == "two clusters":
        return (np.where(np.arange(80) % 2, 100, -100)[:, None] + noise).astype("float32")
    x = rng.standard_normal((80, 6)).astype("float32")
    x[1::2] = x[::2]
    if kind == "neighbouring numbers":
        x[1::2, 0] = np.nextafter(x[::2, 0], np.float32(9))
    return x


@pytest.mark.parametrize("kind", ["offset", "two clusters", "repeated", "neighbouring numbers"])
@pytest.mark.parametrize("name", ["euclidean", "squared_euclidean"])
def test_close_rows_do_not_cancel(name: str, kind: str) -> None:
    """By value, each distance against itself, and gradients too."""
    x = _rows(kind)
    weight = np.random.default_rng(1).uniform(0.5, 1.0, (80, 80)).astype("float32")
    weights = ops.convert_to_tensor(weight)
    apart = x[:, None].astype("float64") - x[None]
    right = (apart**2).sum(-1)
    slope = 2.0 * weight
    if name == "euclidean":
        right = np.sqrt(right)
        slope = np.divide(weight, right, out=np.zeros_like(right), where=right > 0)
    d = ops.convert_to_numpy(distances.get(name)(x, x))
    np.testing.assert_array_equal(d == 0, right == 0)
    np.testing.assert_allclose(d, right, rtol=1e-5)
    _, (dx, dr) = value_and_gradients(lambda a, b: weights * distances.get(name)(a, b), x, x.copy())
    assert_close(dx, (slope[..., None] * apart).sum(1), 1e-6)
    assert_close(dr, -(slope[..., None] * apart).sum(0), 1e-6)


@pytest.mark.parametrize("name", ["euclidean", "squared_euclidean", "snr", "cosine"])
def test_equal_rows_are_at_0(name: str) -> None:
    x = np.repeat(batch(70)[1], 2, axis=0)
    x[2, 0], x[3, 0] = 0.0, -0.0
    if name == "cosine":
        x = ops.convert_to_numpy(unit_rows(x))
    d = ops.convert_to_numpy(distances.get(name)(x, x))
    np.testing.assert_array_equal(d == 0, np.all(x[:, None] == x[None], axis=-1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so_and_leaves_other_pairs_alone(bad: float) -> None:
    x = _rows("offset")
    right = ops.convert_to_numpy(distances.get("squared_euclidean")(x, x))
    r = x.copy()
    r[5, 2] = bad
    d = ops.convert_to_numpy(distances.get("squared_euclidean")(x, r))
    assert not np.isfinite(d[:, 5]).any()
    np.testing.assert_allclose(np.delete(d, 5, 1), np.delete(right, 5, 1), rtol=1e-5)
