"""The contrastive loss of given distances."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from kinfold.compat import tensorflow_addons as tfa
from kinfold.losses import ContrastiveLoss
from native import assert_close, value_and_gradients

Y = np.array([1, 0, 0, 1])
D = np.array([0.5, 0.25, 3.0, 0.0], "float32")
ROWS = np.array([0.25, 0.5625, 0.0, 0.0])


@pytest.mark.parametrize("loss", [ContrastiveLoss, tfa.losses.ContrastiveLoss])
def test_reductions_and_weights(loss: type) -> None:
    w = np.array([1.0, 2.0, 3.0, 4.0], "float32")
    for reduction, plain, weighted in (
        ("sum", ROWS.sum(), (w * ROWS).sum()),
        ("mean", ROWS.mean(), (w * ROWS).mean()),
        ("sum_over_batch_size", ROWS.mean(), (w * ROWS).mean()),
        ("mean_with_sample_weight", ROWS.mean(), (w * ROWS).sum() / w.sum()),
        ("none", ROWS, w * ROWS),
        (None, ROWS, w * ROWS),
    ):
        made = loss(reduction=reduction)
        assert_close(ops.convert_to_numpy(made(Y, D)), plain, 1e-6)
        assert_close(ops.convert_to_numpy(made(Y, D, w)), weighted, 1e-6)
        assert_close(
            ops.convert_to_numpy(made(Y, D, 2.0)),
            2 * plain if reduction != "mean_with_sample_weight" else plain,
            1e-6,
        )


def test_columns_never_broadcast() -> None:
    """[batch, 1] against [batch] gave 0.531 instead of 0.275 in TensorFlow Addons."""
    expected = ROWS.mean()
    for y in (Y, Y[:, None]):
        for d in (D, D[:, None]):
            assert_close(float(ContrastiveLoss()(y, d)), expected, 1e-6)
            assert tuple(ContrastiveLoss(reduction=None)(y, d).shape) == (4,)


def test_gradient_is_finite_at_zero_distance() -> None:
    _, (dd,) = value_and_gradients(lambda d: ContrastiveLoss(reduction="sum")(Y, d), D)
    assert_close(dd, [1.0, -1.5, 0.0, 0.0], 1e-6)


def test_a_margin_of_any_number_and_half_precision() -> None:
    loss = ContrastiveLoss(margin=np.float32(2.0))
    half = ops.cast(D, "bfloat16")
    assert_close(float(loss(Y, half)), (0.25 + 1.75**2) / 4, 1e-6)


@pytest.mark.parametrize("loss", [ContrastiveLoss, tfa.losses.ContrastiveLoss])
def test_config(loss: type) -> None:
    given = {"margin": 0.3, "reduction": "sum", "name": "mine", "dtype": "float16"}
    made = loss(**given, gather_across_devices=False)
    config = json.loads(json.dumps(made.get_config()))
    assert config == {**given, "gather_across_devices": False}
    assert loss.from_config(config).get_config() == config
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(made)))
    assert type(keras.saving.deserialize_keras_object(saved)) is loss


def test_addons_names() -> None:
    assert tfa.losses.contrastive.ContrastiveLoss is tfa.losses.ContrastiveLoss
    assert tfa.losses.ContrastiveLoss().name == "contrasitve_loss"  # as the peer spells it
    assert tfa.losses.ContrastiveLoss(reduction="auto").reduction == "sum_over_batch_size"
