"""The names that TensorFlow Addons registered with Keras, and its layer."""

import keras
import numpy as np
import pytest
from keras import ops

import kinfold.compat.tensorflow_addons as tfa
from cases import batch
from native import assert_close, number, value_and_gradients

LOSSES = {
    "triplet_semihard_loss": "TripletSemiHardLoss",
    "triplet_hard_loss": "TripletHardLoss",
    "lifted_struct_loss": "LiftedStructLoss",
    "contrastive_loss": "ContrastiveLoss",
    "npairs_loss": "NpairsLoss",
    "npairs_multilabel_loss": "NpairsMultilabelLoss",
}


@pytest.mark.parametrize("function", LOSSES)
def test_registered_strings(function: str) -> None:
    kind = getattr(tfa.losses, LOSSES[function])
    for name in (f"Addons>{function}", f"Addons>{LOSSES[function]}"):
        found = keras.losses.get(name)
        assert type(found) is kind
        same = [{**one.get_config(), "name": ""} for one in (found, kind())]
        assert same[0] == same[1]


def test_compiles_with_a_string() -> None:
    y, x = batch(16, d=4)
    y = y.astype("int64") + 2**24  # floats would merge them
    model = keras.Sequential([keras.Input((4,)), keras.layers.Activation("linear")])
    model.compile("sgd", loss="Addons>triplet_semihard_loss")
    got = model.evaluate(x, y, batch_size=16, verbose=0)
    assert_close(got, number(tfa.losses.TripletSemiHardLoss()(y, x)), 1e-5)


def test_configs_of_keras_2() -> None:
    config = {
        "class_name": "Addons>TripletSemiHardLoss",
        "config": {"reduction": "auto", "name": "triplet_semihard_loss", "margin": 0.7},
    }
    loss = keras.losses.deserialize(config)
    assert (type(loss), loss.margin) == (tfa.losses.TripletSemiHardLoss, 0.7)
    layer = {"class_name": "Addons>PoincareNormalize", "config": {"axis": 1, "epsilon": 0.1}}
    assert keras.layers.deserialize(layer).epsilon == 0.1


def test_onto_the_ball() -> None:
    x = np.random.default_rng(0).normal(size=(9, 5)).astype("float32")
    x[3], x[5] = 0.0, 0.1
    layer = tfa.layers.PoincareNormalize(epsilon=0.01)
    value, (dx,) = value_and_gradients(layer, x)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        assert_close(value, x * np.minimum(0.99 / norm, 1), 1e-6)
    assert np.all(np.isfinite(dx))
    np.testing.assert_array_equal(dx[[3, 5]], 1.0)  # inside, what goes in comes out
    again = tfa.layers.PoincareNormalize.from_config(layer.get_config())
    assert_close(ops.convert_to_numpy(again(x)), value, 1e-6)
    flat = tfa.layers.PoincareNormalize(axis=[1, 2])(x[:, :, None])
    assert tuple(flat.shape) == (9, 5, 1)
