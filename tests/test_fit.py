"""The losses inside Keras: compile, fit, save, load, mixed precision; and in bare loops."""

import functools
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kinfold
from cases import batch
from kinfold import layers, losses
from kinfold.compat import tensorflow_addons as tfa
from kinfold.compat import tensorflow_similarity as tfsim
from native import BACKEND

PAIR_LOSSES = [losses.CircleLoss, losses.PairContrastiveLoss, tfsim.losses.CircleLoss]
GIVEN_DISTANCES = [losses.ContrastiveLoss, tfa.losses.ContrastiveLoss]


def encoder() -> keras.Model:
    return keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16, activation="relu"), layers.L2Embedding(4)]
    )


def siamese() -> keras.Model:
    left, right = keras.Input((8,)), keras.Input((8,))
    embed = encoder()
    return keras.Model([left, right], layers.PairDistance()([embed(left), embed(right)]))


def pair_data() -> tuple[list[np.ndarray], np.ndarray]:
    return [batch(32)[1], batch(32, seed=1)[1]], batch(32, classes=2)[0]


@pytest.mark.parametrize("loss", PAIR_LOSSES + GIVEN_DISTANCES)
def test_fit_save_load(loss: type, tmp_path) -> None:
    given = loss in GIVEN_DISTANCES
    model = siamese() if given else encoder()
    x, y = pair_data() if given else batch(32)[::-1]
    model.compile("adam", loss=loss(name="mine"))
    history = model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0).history["loss"]
    assert history[-1] < history[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again.loss) is loss
    assert again.loss.get_config() == model.loss.get_config()
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    assert again.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_large_ids_apart(policy: str) -> None:
    """In the loss that fit reports: ids that only float32 or less would merge."""
    y, x = batch(32)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        values = []
        for labels in (y, y + 2**24, (y + 2**31 - 8).astype("int32")):
            keras.utils.set_random_seed(0)
            model = encoder()
            model.compile("adam", loss=losses.CircleLoss())
            values.append(model.fit(x, labels, batch_size=32, verbose=0).history["loss"][0])
        weights = [ops.convert_to_numpy(w) for w in model.weights]
    finally:
        keras.config.set_dtype_policy(before)
    assert values[0] > 0
    assert values[1:] == values[:1] * 2
    assert all(np.all(np.isfinite(w)) for w in weights)


def test_fit_with_weights_columns_partial_batches_and_evaluate() -> None:
    y, x = batch(21)
    model = encoder()
    model.compile("sgd", loss=losses.CircleLoss(gamma=10.0))
    weight = np.linspace(0, 1, 21)
    history = model.fit(x, y[:, None], batch_size=8, sample_weight=weight, epochs=2, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))
    expected = losses.CircleLoss(gamma=10.0)(y, model.predict(x, verbose=0))
    assert model.evaluate(x, y, batch_size=21, verbose=0) == pytest.approx(float(expected), 1e-5)


def test_a_batch_of_many_tiles_and_a_smaller_rest() -> None:
    """TensorFlow traces `fit` with an unknown batch size; 700 rows are four tiles, 300 are one."""
    y, x = batch(1000, classes=250)
    for loss in (losses.CircleLoss(), losses.PairContrastiveLoss(block_size=128)):
        model = encoder()
        model.compile(keras.optimizers.SGD(0.0), loss=loss)
        z = model.predict(x, verbose=0)
        expected = [float(loss(y[cut], z[cut])) for cut in (slice(700), slice(700, None))]
        got = model.fit(x, y, batch_size=700, shuffle=False, verbose=0).history["loss"][0]
        assert got == pytest.approx(0.7 * expected[0] + 0.3 * expected[1], rel=1e-4)


def test_floating_labels_in_fit_say_so() -> None:
    y, x = batch(16)
    model = encoder()
    model.compile("sgd", loss=losses.CircleLoss())
    with pytest.raises(TypeError, match="integer class ids"):
        model.fit(x, y.astype("float32"), verbose=0)


@pytest.mark.parametrize(
    "loss",
    [
        losses.CircleLoss(),
        losses.TripletLoss(positives="all", negatives="all"),
        losses.LiftedStructureLoss(),
        losses.NPairsLoss(distance="cosine"),
    ],
    ids=lambda loss: loss.name,
)
def test_an_unbuilt_model_with_a_batch_of_many_tiles(loss: losses.PairLoss) -> None:
    """Keras asks for its shapes first, on PyTorch with tensors that have no values."""
    y, x = batch(600, classes=150)
    model = keras.Sequential([keras.layers.Dense(6), layers.L2Embedding(4)])
    model.compile("sgd", loss=loss)
    history = model.fit(x, y, batch_size=600, epochs=2, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))


def test_bare_loop_with_native_tensors() -> None:
    y, x = batch(24)
    loss = losses.CircleLoss(gamma=20.0, normalize=True)
    first = float(loss(y, x))
    if BACKEND == "jax":
        import jax
        import jax.numpy as jnp

        step = jax.jit(lambda w: w - 0.01 * jax.grad(lambda w: loss(jnp.asarray(y), w))(w))
        w = jnp.asarray(x)
        for _ in range(20):
            w = step(w)
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        w = tf.Variable(x)
        for _ in range(20):
            with tf.GradientTape() as tape:
                value = loss(tf.constant(y), w)
            w.assign_sub(0.01 * tape.gradient(value, w))
    else:
        import torch

        w = torch.nn.Parameter(torch.tensor(x))
        optimizer = torch.optim.SGD([w], lr=0.01)
        for _ in range(20):
            optimizer.zero_grad()
            loss(torch.tensor(y), w).backward()
            optimizer.step()
    assert float(ops.convert_to_numpy(loss(y, w))) < 0.8 * first


class Halves(keras.utils.PyDataset):
    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return 2

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self.x[6 * k : 6 * k + 6], self.y[6 * k : 6 * k + 6]


def sources(x: np.ndarray, y: np.ndarray) -> dict[str, dict[str, Any]]:
    """The same two batches from everything that `fit` takes."""
    import grain

    tf, torch = pytest.importorskip("tensorflow"), pytest.importorskip("torch")

    halves = Halves(x, y)
    tensors = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
    examples = grain.MapDataset.source(np.arange(12)).map(lambda k: (x[k], y[k]))
    arrays = {"x": x, "batch_size": 6, "shuffle": False}
    return {
        "arrays": {**arrays, "y": y},
        "tf.data": {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(6)},
        "generator": {"x": (halves[k] for k in range(2))},
        "PyDataset": {"x": halves, "shuffle": False},
        "DataLoader": {"x": torch.utils.data.DataLoader(tensors, batch_size=6)},
        "Grain": {"x": examples.batch(6)},
        "split": {**arrays, "y": y, "validation_split": 0.5},
        "validation": {**arrays, "y": y % 2**31, "validation_data": (x, y)},
        "validation PyDataset": {**arrays, "y": y % 2**31, "validation_data": halves},
    }


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_ids_beyond_32_bits(monkeypatch) -> None:
    """Kept apart, or refused with the weights as they were: whatever the source of the data."""
    _, x = batch(12)
    y = np.array([0, 0, 1, 1, 2, 2] * 2)
    inputs = keras.Input((8,))
    model = kinfold.EmbeddingModel(inputs, layers.L2Embedding(4)(inputs))
    model.compile(keras.optimizers.SGD(0.0), losses.CircleLoss(gamma=8))
    right = [model.test_on_batch(x[k : k + 6], y[k : k + 6]) for k in (0, 6)]
    weights = model.get_weights()[0]

    def agrees(name: str, call: Any, expected: float) -> None:
        if BACKEND == "jax":
            with pytest.raises(ValueError, match="more than 32 bits"):
                call()
            np.testing.assert_array_equal(model.get_weights()[0], weights)
        else:
            assert call() == pytest.approx(expected, rel=1e-4), name

    def trained(source: dict[str, Any]) -> float:
        history = model.fit(**source, verbose=0).history
        return history["val_loss" if "validation_data" in source else "loss"][0]

    def evaluated(source: dict[str, Any]) -> float:
        source.pop("shuffle", None)
        return model.evaluate(**source, verbose=0)

    for name, source in sources(x, y * 2**32).items():
        expected = right[0] if name == "split" else np.mean(right)
        agrees(name, functools.partial(trained, source), expected)
    for name, source in list(sources(x, y * 2**32).items())[:6]:
        agrees(name, functools.partial(evaluated, source), np.mean(right))
    if BACKEND == "jax":
        import jax

        # There Keras moves each batch to the device before the step, and its ids are cut.
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        for name, source in list(sources(x, y * 2**32).items())[:6]:
            agrees(name, functools.partial(trained, source), 0.0)
        monkeypatch.undo()
    agrees("train_on_batch", lambda: model.train_on_batch(x[:6], y[:6] * 2**32), right[0])
    agrees("test_on_batch", lambda: model.test_on_batch(x[:6], y[:6] * 2**32), right[0])


def test_ids_beyond_32_bits_of_one_output_of_two() -> None:
    y, x = batch(12)
    inputs = keras.Input((8,))
    embedding = layers.L2Embedding(4, name="e")(inputs)
    outputs = {"e": embedding, "c": keras.layers.Dense(8, name="c")(embedding)}
    model = kinfold.EmbeddingModel(inputs, outputs)
    head = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), {"e": losses.CircleLoss(gamma=8), "c": head})
    right = model.evaluate(x, {"e": y, "c": y}, verbose=0)
    wide = {"e": y * 2**32, "c": y}
    if BACKEND == "jax":
        with pytest.raises(ValueError, match="more than 32 bits"):
            model.evaluate(x, wide, verbose=0)
    else:
        assert model.evaluate(x, wide, verbose=0) == pytest.approx(right)


@pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch's modules")
def test_pytorch_sees_the_variables_of_the_loss() -> None:
    inputs = keras.Input((4,))
    model = kinfold.EmbeddingModel(inputs, keras.layers.Dense(2)(inputs))
    for loss, count in ((losses.ArcFaceLoss(3, 2), 3), (losses.TripletLoss(), 2)):
        model.compile("sgd", loss)
        seen = {id(value) for value in model.parameters()}
        assert seen == {id(variable.value) for variable in model.trainable_variables}
        assert len(seen) == count
