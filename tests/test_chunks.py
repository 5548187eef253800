"""A layer in chunks is the layer: outputs, gradients, state and training, in less memory."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kinfold
from kinfold.layers import Chunked, L2Embedding
from native import BACKEND, assert_close

N = 11


def images(n: int = N, dtype: str = "float32") -> np.ndarray:
    x = np.random.default_rng(3).normal(size=(n, 6, 6, 2)).astype("float32")
    return (x * 64 + 128).clip(0, 255).astype(dtype) if dtype == "uint8" else x


def encoder(*middle: layers.Layer) -> keras.Model:
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, activation="gelu")(inputs)
    for layer in middle:
        x = layer(x)
    return keras.Model(inputs, L2Embedding(3)(layers.Flatten()(x)))


def gradients(
    fn: Callable[[Any], Any], model: keras.layers.Layer, x: np.ndarray, training: bool = True
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Outputs, and the gradients of `fn(outputs)` by the trainable weights and by the inputs.

    The state of the model moves on as in a training step.
    """
    if BACKEND == "jax":
        import jax

        def value(trainable: Any, x: Any) -> Any:
            others = [v.value for v in model.non_trainable_variables]
            y, others = model.stateless_call(trainable, others, x, training=training)
            return fn(y), (y, others)

        argnums = (0, 1) if x.dtype == np.float32 else (0,)
        step = jax.jit(jax.value_and_grad(value, argnums, has_aux=True))
        model(x)  # builds it
        (_, (y, others)), found = step([v.value for v in model.trainable_variables], x)
        for variable, new in zip(model.non_trainable_variables, others, strict=True):
            variable.assign(new)
        found = jax.tree.leaves(found)
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        @tf.function(input_signature=[tf.TensorSpec((None, *x.shape[1:]), x.dtype)])
        def step(x: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = model(x, training=training)
                value = fn(y)
            at = [v.value for v in model.trainable_variables]
            return y, tape.gradient(value, [*at, x] if x.dtype.is_floating else at)

        y, found = step(tf.constant(x))
    else:
        import torch

        x = torch.tensor(x)
        wanted = [v.value for v in model.trainable_variables]
        if x.is_floating_point():
            wanted.append(x.requires_grad_())
        y = model(x, training=training)
        found = torch.autograd.grad(fn(y), wanted)
    return ops.convert_to_numpy(y), [ops.convert_to_numpy(g) for g in found]


def spread(y: Any) -> Any:
    """A loss of the whole batch: each output meets every other."""
    return ops.sum(ops.exp(2.0 * ops.matmul(y, ops.transpose(y))))


def same(a: tuple[np.ndarray, list[np.ndarray]], b: tuple[np.ndarray, list[np.ndarray]]) -> None:
    assert_close(a[0], b[0], 1e-6)
    assert len(a[1]) == len(b[1]) > 0
    for one, other in zip(a[1], b[1], strict=True):
        assert_close(one, other, 1e-5)


@pytest.mark.parametrize("size", [1, 3, N, 16])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_are_the_layers_own(size: int, training: bool) -> None:
    model = encoder()
    expected = gradients(spread, model, images(), training)
    same(gradients(spread, Chunked(model, size), images(), training), expected)
    with pytest.raises(AssertionError):
        same(gradients(lambda y: spread(y[:-1]), model, images()), expected)


def plain_chunks(model: keras.layers.Layer, size: int) -> keras.layers.Layer:
    """What `Chunked` is to equal where chunks differ from the whole: a loop that keeps all."""

    class Plain(layers.Wrapper):
        def call(self, x: Any, training: bool | None = None) -> Any:
            parts = [x[i : i + size] for i in range(0, N, size)]
            return ops.concatenate([self.layer(part, training=training) for part in parts])

        def compute_output_spec(self, x: Any, training: bool | None = None) -> Any:
            return self.layer.compute_output_spec(x)

    return Plain(model)


STATEFUL: dict[str, Callable[[], list[layers.Layer]]] = {
    "batch statistics": lambda: [layers.BatchNormalization(momentum=0.5)],
    "renormalisation": lambda: [layers.BatchNormalization(momentum=0.5, renorm=True)],
    "random numbers": lambda: [layers.Dropout(0.5, seed=1), layers.GaussianNoise(0.5, seed=2)],
}


@pytest.mark.parametrize("what", STATEFUL)
def test_state_moves_on_once_a_chunk(what: str) -> None:
    """The second pass sees what the first saw: the same masks and averages, changed once."""
    results = []
    for chunked in (Chunked, plain_chunks):
        keras.utils.set_random_seed(7)
        inner = encoder(*STATEFUL[what]())
        model = chunked(inner, 4)
        for _ in range(2):
            result = gradients(spread, model, images())
        state = [ops.convert_to_numpy(v) for v in inner.non_trainable_variables]
        results.append((result, state))
    (ours, our_state), (theirs, their_state) = results
    same(ours, theirs)
    for one, other in zip(our_state, their_state, strict=True):
        assert_close(one, other, 1e-5)
    with pytest.raises(AssertionError):  # and it is not what the layer does to the whole batch
        same(gradients(spread, inner, images()), ours)


def test_outside_of_training_the_state_stays() -> None:
    inner = encoder(layers.BatchNormalization(), layers.Dropout(0.5))
    gradients(spread, inner, images())
    before = [ops.convert_to_numpy(v).copy() for v in inner.variables]
    expected = gradients(spread, inner, images(), training=False)
    same(gradients(spread, Chunked(inner, 4), images(), training=False), expected)
    predicted = Chunked(inner, 4)(images())
    assert_close(ops.convert_to_numpy(predicted), expected[0], 1e-6)
    for variable, value in zip(inner.variables, before, strict=True):
        assert np.array_equal(ops.convert_to_numpy(variable), value)


def test_frozen_weights_and_inputs_without_a_gradient() -> None:
    model = encoder(layers.Conv2D(4, 1), layers.BatchNormalization())
    model.layers[1].trainable = model.layers[3].trainable = False
    expected = gradients(spread, model, images(dtype="uint8"))
    assert len(expected[1]) == 4
    same(gradients(spread, Chunked(model, 3), images(dtype="uint8")), expected)
    model.trainable = False
    expected = gradients(spread, model, images())
    assert len(expected[1]) == 1
    same(gradients(spread, Chunked(model, 3), images()), expected)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_the_layers(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        model = encoder(layers.Dense(4))
        chunked = Chunked(model, 4)
    finally:
        keras.config.set_dtype_policy("float32")
    expected = gradients(spread, model, images())
    found = gradients(spread, chunked, images())
    assert found[0].dtype == expected[0].dtype
    eps = 2.0**-10 if policy == "mixed_float16" else 2.0**-7
    assert_close(found[0], expected[0], eps)
    for one, other in zip(found[1], expected[1], strict=True):
        assert one.dtype == other.dtype
        assert_close(one, other, 8 * eps)


class Twin(keras.Model):
    """Takes and returns nests; its parts are built by the first call."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense, self.drop = layers.Dense(3), layers.Dropout(0.5, seed=1)

    def call(self, inputs: Any) -> Any:
        left, right = self.dense(inputs["left"]), self.drop(self.dense(inputs["right"]))
        return {"sum": left + right, "which": ops.argmax(left, axis=1), "left": left}


def test_nests_and_models_built_by_their_first_call() -> None:
    x = {"left": images()[:, 0, 0], "right": images()[:, 1, 1]}
    chunked = Chunked(Twin(), 4)
    spec = chunked({k: keras.KerasTensor((None, 2)) for k in x})
    assert {k: tuple(v.shape) for k, v in spec.items()} == {
        "sum": (None, 3), "which": (None,), "left": (None, 3)
    }  # fmt: skip
    expected, found = chunked.layer(x), chunked(x)
    for name in expected:
        assert_close(ops.convert_to_numpy(found[name]), ops.convert_to_numpy(expected[name]), 1e-6)
    # A model that takes no `training` passes it on to what it holds.
    one, two = chunked(x, training=True), chunked(x, training=True)
    assert np.any(ops.convert_to_numpy(one["sum"]) != ops.convert_to_numpy(two["sum"]))
    with pytest.raises(ValueError, match="first axis"):
        chunked({"left": x["left"], "right": x["right"][:-1]})


def fitted(chunk_size: int | None, **compiled: Any) -> tuple[keras.Model, list[float]]:
    keras.utils.set_random_seed(5)
    inner = encoder(layers.Dense(4, kernel_regularizer="l2"))
    inputs = keras.Input((6, 6, 2))
    outputs = inner(inputs) if chunk_size is None else Chunked(inner, chunk_size)(inputs)
    model = kinfold.EmbeddingModel(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.01), kinfold.losses.CircleLoss(gamma=8.0), **compiled)
    y = np.arange(N) % 3
    history = model.fit(images(), y, batch_size=8, epochs=1, shuffle=False, verbose=0)
    return model, history.history["loss"]


@pytest.mark.parametrize("compiled", [{}, {"run_eagerly": True}], ids=str)
def test_fit_is_the_fit_of_the_layer(compiled: dict[str, Any]) -> None:
    """With a regulariser of weights, counted once; batches of 8 and 3 in chunks of 3."""
    expected, losses = fitted(None, **compiled)
    model, found = fitted(3, **compiled)
    assert_close(found, losses, 1e-5)
    for one, other in zip(model.get_weights(), expected.get_weights(), strict=True):
        assert_close(one, other, 1e-5)
    assert [v.name for v in model.variables] == [v.name for v in expected.variables]


def test_saved_and_loaded_without_the_class(tmp_path) -> None:
    model, _ = fitted(3)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    expected = model.predict(images(), verbose=0)
    assert_close(again.predict(images(), verbose=0), expected, 0.0)
    chunked = again.layers[-1]
    assert (type(chunked), chunked.chunk_size) == (Chunked, 3)
    assert_close(chunked.layer.predict(images(), verbose=0), expected, 1e-6)
    copy = Chunked.from_config(chunked.get_config())
    assert copy.get_config() == chunked.get_config()


@pytest.mark.parametrize("unbuilt", [Twin, lambda: keras.Sequential([layers.Dense(3)])])
def test_what_was_built_by_its_first_call_is_loaded(unbuilt: Any, tmp_path) -> None:
    inputs = keras.Input((2,))
    keras.saving.get_custom_objects()["Twin"] = Twin
    given = {"left": inputs, "right": inputs} if unbuilt is Twin else inputs
    model = keras.Model(inputs, Chunked(unbuilt(), 4)(given))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for one, other in zip(again.get_weights(), model.get_weights(), strict=True):
        assert np.array_equal(one, other)


class Odd(layers.Layer):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def call(self, x: Any) -> Any:
        if self.what == "loss":
            self.add_loss(ops.sum(x))
        if self.what == "mean":
            return ops.mean(x, axis=0)
        if self.what == "scalar":
            return ops.mean(x)
        return x + keras.random.normal(ops.shape(x))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Odd("loss"), "adds a loss"),
        (layers.Activation("relu", activity_regularizer="l2"), "adds a loss"),
        (Odd("mean"), r"a row for each row .* \(6, 2\)"),
        (Odd("scalar"), r"a row for each row .* \(\)"),
        (Odd("seed"), "SeedGenerator"),
    ],
    ids=["add_loss", "activity", "mean", "scalar", "seed"],
)
def test_refuses_what_has_no_meaning_by_chunks(layer: layers.Layer, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gradients(ops.sum, Chunked(layer, 4), images()[:, 0])


def test_arguments() -> None:
    with pytest.raises(ValueError, match="chunk_size"):
        Chunked(encoder(), 0)
    with pytest.raises(ValueError, match="dtype"):
        Chunked(encoder(), 4, dtype="float16")
