"""The layers that end an embedding model."""

import keras
import numpy as np
import pytest
from keras import ops

from cases import batch, distances
from kinfold.layers import L2Embedding, PairDistance
from native import assert_close, value_and_gradients

NAMES = ["cosine", "euclidean", "squared_euclidean", "inner_product", "manhattan", "snr"]


@pytest.mark.parametrize("name", NAMES)
def test_pair_distance_is_the_diagonal_of_the_pairwise_one(name: str) -> None:
    x, r = batch(7)[1], batch(7, seed=1)[1]
    paired = ops.convert_to_numpy(PairDistance(name)([x, r]))
    assert_close(paired, np.diag(distances(x, r, name)), 1e-5)


def test_pair_distance_is_exact_for_close_embeddings() -> None:
    x = batch(5)[1]
    d = ops.convert_to_numpy(PairDistance()([x, x + np.float32(2.0**-20)]))
    assert_close(d, np.full(5, 2.0**-20 * 8**0.5), 0.1)
    assert np.all(ops.convert_to_numpy(PairDistance()([x, x])) == 0)


@pytest.mark.parametrize("name", NAMES)
def test_pair_distance_has_finite_gradients_where_embeddings_meet(name: str) -> None:
    layer = PairDistance(name)
    x = batch(3)[1]
    x[1] = 0.0
    _, gradients = value_and_gradients(lambda x, r: layer([x, r]), x, x.copy())
    assert all(np.all(np.isfinite(g)) for g in gradients)


def test_embedding_has_unit_rows_and_zero_gradient_at_zero() -> None:
    layer = L2Embedding(5)
    x = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], "float32")
    layer.build((None, 3))
    y, (dx,) = value_and_gradients(lambda x: layer(x), x)
    assert_close(np.linalg.norm(y, axis=1), [1.0, 0.0], 1e-6)
    assert np.all(np.isfinite(dx))
    assert np.all(dx[1] == 0)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_embedding_under_mixed_precision(policy: str) -> None:
    layer = L2Embedding(64, dtype=policy, kernel_initializer=keras.initializers.Constant(300.0))
    y = ops.convert_to_numpy(ops.cast(layer(np.ones((2, 3), "float32")), "float32"))
    # The sum of squares, 5e7, is beyond float16.
    assert_close(np.linalg.norm(y, axis=1), [1.0, 1.0], 1e-2)


def test_layers_are_saved_and_loaded(tmp_path) -> None:
    left, right = keras.Input((3,)), keras.Input((3,))
    embed = L2Embedding(4, use_bias=False)
    model = keras.Model([left, right], PairDistance("manhattan")([embed(left), embed(right)]))
    model.save(tmp_path / "pairs.keras")
    again = keras.saving.load_model(tmp_path / "pairs.keras")
    x = [batch(6, d=3)[1], batch(6, d=3, seed=1)[1]]
    assert_close(again.predict(x, verbose=0), model.predict(x, verbose=0), 0.0)
    assert model.predict(x, verbose=0).shape == (6,)
