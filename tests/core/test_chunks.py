"""A layer in chunks is the layer: outputs, gradients, state and training, in less memory."""

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kinfold
from kinfold.layers import Chunked, L2Embedding
from native import BACKEND, assert_close

only_torch = pytest.mark.skipif(BACKEND != "torch", reason="what PyTorch has of its own")

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


Found = tuple[np.ndarray, list[np.ndarray]]  # outputs, and gradients


def gradients(
    fn: Callable[[Any], Any], model: keras.layers.Layer, x: np.ndarray, training: bool = True
) -> Found:
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
        if not model.built:
            model.build(x.shape)
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


def assert_same(
    a: tuple[np.ndarray, list[np.ndarray]], b: tuple[np.ndarray, list[np.ndarray]]
) -> None:
    assert_close(a[0], b[0], 1e-6)
    assert len(a[1]) == len(b[1]) > 0
    for one, other in zip(a[1], b[1], strict=True):
        assert_close(one, other, 1e-5)


@pytest.mark.parametrize(
    ("size", "training"), [(1, True), (3, True), (3, False), (N, True), (16, True)]
)
def test_outputs_and_gradients_are_the_layers_own(size: int, training: bool) -> None:
    model = encoder()
    expected = gradients(spread, model, images(), training)
    assert_same(gradients(spread, Chunked(model, size), images(), training), expected)
    with pytest.raises(AssertionError):
        assert_same((expected[0], [1.001 * g for g in expected[1]]), expected)


CONVOLUTIONS: dict[str, Callable[[], list[layers.Layer]]] = {
    "strides": lambda: [layers.Conv2D(4, (2, 3), (2, 1), "same"), layers.Conv2D(2, 1, 2)],
    "depthwise": lambda: [layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")],
    "depthwise, strided": lambda: [layers.DepthwiseConv2D(3, 2), layers.SeparableConv2D(3, 1)],
    "dilated": lambda: [layers.Conv2D(4, 2, dilation_rate=2), layers.ReLU(6)],
    "groups": lambda: [layers.Conv2D(4, 3, groups=2, padding="same")],
    "transposed": lambda: [layers.Conv2DTranspose(3, 3, 2)],
    "large": lambda: [layers.ZeroPadding2D(8), layers.Conv2D(2, 9)],
    "one axis": lambda: [layers.Reshape((16, 4)), layers.Conv1D(3, 4, 3)],
    "three axes": lambda: [layers.Reshape((4, 4, 2, 2)), layers.Conv3D(3, 2, padding="same")],
}


@pytest.mark.parametrize("what", CONVOLUTIONS)
def test_gradients_of_convolutions(what: str) -> None:
    """JAX computes them by forms of our own (see `kinfold.core.chunks.convolutions_jax`)."""
    model = encoder(*CONVOLUTIONS[what]())
    assert_same(gradients(spread, Chunked(model, 4), images()), gradients(spread, model, images()))


@pytest.mark.skipif(BACKEND != "jax", reason="a form that XLA is given by JAX")
def test_convolutions_in_a_loop_are_the_ones_of_xlas_library() -> None:
    import jax

    inner = encoder(layers.DepthwiseConv2D(3), layers.Conv2D(4, 1))
    weights, x = [v.value for v in inner.trainable_variables], images(12)

    def chunked(weights: Any) -> Any:
        return spread(Chunked(inner, 4).stateless_call(weights, [], x)[0])

    def scanned(weights: Any) -> Any:
        def step(state: Any, x: Any) -> Any:
            return state, inner.stateless_call(weights, [], x)[0]

        return spread(jax.lax.scan(step, 0, x.reshape(3, 4, 6, 6, 2))[1].reshape(12, -1))

    forms = []
    for fn in (chunked, scanned):
        program = jax.jit(jax.grad(fn)).lower(weights).compile().as_text()
        forms.append(set(re.findall(r"dim_labels=(\S+?)[,\s]", program)))
    assert forms[0] == {"b01f_01io->b01f"} < forms[1]


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
        result = gradients(spread, model, images())
        state = [ops.convert_to_numpy(v) for v in inner.non_trainable_variables]
        results.append((result, state))
    (ours, our_state), (theirs, their_state) = results
    assert_same(ours, theirs)
    for one, other in zip(our_state, their_state, strict=True):
        assert_close(one, other, 1e-5)
    with pytest.raises(AssertionError):  # and it is not what the layer does to the whole batch
        assert_same(gradients(spread, inner, images()), ours)


def test_outside_of_training_the_state_stays() -> None:
    inner = encoder(layers.BatchNormalization(), layers.Dropout(0.5))
    gradients(spread, inner, images())
    before = [ops.convert_to_numpy(v).copy() for v in inner.variables]
    expected = gradients(spread, inner, images(), training=False)
    assert_same(gradients(spread, Chunked(inner, 4), images(), training=False), expected)
    predicted = Chunked(inner, 4)(images()[:8])
    assert_close(ops.convert_to_numpy(predicted), expected[0][:8], 1e-6)
    for variable, value in zip(inner.variables, before, strict=True):
        assert np.array_equal(ops.convert_to_numpy(variable), value)


def test_frozen_weights_and_inputs_without_a_gradient() -> None:
    model = encoder(layers.Conv2D(4, 1), layers.BatchNormalization())
    model.layers[1].trainable = model.layers[3].trainable = False
    expected = gradients(spread, model, images(dtype="uint8"))
    assert len(expected[1]) == 4
    assert_same(gradients(spread, Chunked(model, 3), images(dtype="uint8")), expected)
    model.trainable = False
    expected = gradients(spread, model, images())
    assert len(expected[1]) == 1
    assert_same(gradients(spread, Chunked(model, 3), images()), expected)


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


def kept(model: keras.layers.Layer, x: np.ndarray) -> int:
    """Bytes that the forward pass keeps for the backward pass; in TensorFlow, outside of loops."""
    if BACKEND == "jax":
        import jax

        def backward(trainable: Any, x: Any) -> Any:
            others = [v.value for v in model.non_trainable_variables]
            call = model.stateless_call
            return jax.vjp(lambda t, x: call(t, others, x, training=True)[0], trainable, x)[1]

        held = jax.eval_shape(backward, [v.value for v in model.trainable_variables], x)
        return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(held))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        @tf.function
        def step(x: Any) -> Any:
            with tf.GradientTape() as tape:
                value = spread(model(x, training=True))
            return tape.gradient(value, [v.value for v in model.trainable_variables])

        operations = step.get_concrete_function(tf.constant(x)).graph.get_operations()
        outputs = [y for op in operations for y in op.outputs]
        # What leaves a loop as a list: the outputs, and the gradient by the inputs.
        lists = [y for y in outputs if y.dtype == tf.variant and "While" in y.op.type]
        assert len(lists) == (2 if isinstance(model, Chunked) else 0)
        sizes = [(y.shape.num_elements() or 0) * y.dtype.size for y in outputs]
        return sum(sizes)
    import torch

    sizes = {}

    def pack(a: Any) -> Any:
        sizes[a.untyped_storage().data_ptr()] = a.untyped_storage().nbytes()
        return a

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda a: a):
        y = model(torch.tensor(x, requires_grad=True), training=True)
    assert y.requires_grad
    return sum(sizes.values())


def test_activations_are_not_kept() -> None:
    convolutions = [layers.Conv2D(16, 3, padding="same", activation="gelu") for _ in range(3)]
    model = encoder(*convolutions)
    whole, chunked = kept(model, images(64)), kept(Chunked(model, 4), images(64))
    assert chunked < whole / 8
    # More of the same chunks: only more inputs and outputs, less than a tenth of the activations.
    assert kept(Chunked(model, 4), images(128)) - chunked < whole / 10


def fitted(chunk_size: int | None, n: int = N, **compiled: Any) -> tuple[keras.Model, list[float]]:
    keras.utils.set_random_seed(5)
    inner = encoder(layers.Dense(4, kernel_regularizer="l2"))
    inputs = keras.Input((6, 6, 2))
    outputs = inner(inputs) if chunk_size is None else Chunked(inner, chunk_size)(inputs)
    model = kinfold.EmbeddingModel(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.01), kinfold.losses.CircleLoss(gamma=8.0), **compiled)
    history = model.fit(
        images(n), np.arange(n) % 3, batch_size=8, epochs=1, shuffle=False, verbose=0
    )
    return model, history.history["loss"]


@pytest.mark.parametrize("compiled", [{}, {"run_eagerly": True}], ids=str)
def test_fit_is_the_fit_of_the_layer(compiled: dict[str, Any]) -> None:
    """With a regulariser of weights, counted once; batches of 8 and 3 in chunks of 3."""
    n = 8 if compiled else N  # where it runs eagerly, JAX compiles a loop at every call
    expected, losses = fitted(None, n)
    model, found = fitted(3, n, **compiled)
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
            return x
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


@only_torch
def test_torch_autocast_and_its_modules_random_numbers() -> None:
    """The second pass is under the autocast, and draws the numbers, of the first."""
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.Dropout(0.5))
    layer = layers.TorchModuleWrapper(module)
    x = torch.tensor(images()[:, 0, 0])
    for dtype in (torch.float32, torch.bfloat16):
        results = []
        for model in (Chunked(layer, 4), plain_chunks(layer, 4)):
            torch.manual_seed(3)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
                y = model(x, training=True)
            assert y.dtype == dtype
            # A draw in between moves on what the modules share.
            torch.rand(5)
            results.append([y.detach(), *torch.autograd.grad(y.sum(), list(module.parameters()))])
        for one, other in zip(*results, strict=True):
            # Autocast sums the chunks' gradients in bfloat16 where the weights are cast once.
            assert_close(one.float(), other.float(), 1e-6 if dtype == torch.float32 else 2.0**-7)
