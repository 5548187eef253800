"""Graphs of TensorFlow whose batch size, or even whose rank, is not known while tracing."""

from typing import Any

import keras
import numpy as np
import pytest

from cases import ENGINE, batch
from kinfold import layers, losses
from native import BACKEND, assert_close

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="a feature of TensorFlow alone")

BUILDS = {**{case.name: case.build for case in ENGINE}, "n_pairs": losses.NPairsLoss}


@pytest.mark.parametrize("name", BUILDS)
def test_an_unknown_batch_size(name: str) -> None:
    import tensorflow as tf

    loss = BUILDS[name]()
    specs = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 8])]
    traced = tf.function(lambda y, x: loss(y, x), input_signature=specs, autograph=False)
    # XLA finds no nearest one among none.
    for n in (10,) if "triplet" in name else (10, 0):
        y, x = batch(n)
        assert_close(traced(y.astype("int64"), x), loss(y, x), 1e-5)


def encoder() -> keras.Model:
    inputs = keras.Input((8,))
    return keras.Model(inputs, layers.L2Embedding(3)(inputs))


def test_fit_on_batches_of_a_dataset() -> None:
    import tensorflow as tf

    y, x = batch(21)
    model = encoder()
    model.compile("sgd", losses.NPairsLoss())
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    assert np.isfinite(model.fit(data, shuffle=False, verbose=0).history["loss"]).all()


@pytest.mark.parametrize("which", ["y_true", "y_pred", "ref_labels", "ref_embeddings"])
def test_an_unknown_rank_gets_one_sentence(which: str) -> None:
    import tensorflow as tf

    y, x = batch(6)
    given = {"y_true": y, "y_pred": x, "ref_labels": y, "ref_embeddings": x}

    @tf.function
    def call(value: Any) -> Any:
        return losses.CircleLoss()(**{**given, which: value})

    spec = tf.TensorSpec(None, tf.float32 if given[which].ndim == 2 else tf.int64)
    with pytest.raises(ValueError, match=f"`{which}` has a shape of unknown rank.*ensure_shape"):
        call.get_concrete_function(spec)


def test_fit_on_labels_of_unknown_rank() -> None:
    import tensorflow as tf

    y, x = batch(12)
    model = encoder()
    model.compile("sgd", losses.CircleLoss(gamma=8))
    data = tf.data.Dataset.from_tensor_slices((x, y)).map(
        lambda a, b: (a, tf.py_function(lambda c: c, [b], tf.int64))
    )
    with pytest.raises(ValueError, match="`y_true` has a shape of unknown rank"):
        model.fit(data.batch(6), shuffle=False, verbose=0)
