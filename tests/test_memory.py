"""The memory of earlier batches, against a history kept by hand."""

import copy
import functools
import pickle
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kinfold
from cases import CASES, ENGINE, batch
from kinfold import CrossBatchMemory, losses
from kinfold.compat import tensorflow_similarity as tfsim
from native import BACKEND, assert_close, number, value_and_gradients

D = 4


def stream(sizes: list[int], classes: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of labels, large ids among them, and unit embeddings."""
    rng = np.random.default_rng(0)
    out = []
    for n in sizes:
        x = rng.standard_normal((n, D)).astype("float32")
        y = rng.integers(0, classes, n) + 2**24
        out.append((y, x / np.linalg.norm(x, axis=1, keepdims=True)))
    return out


class History:
    """What a memory of a size holds, as a list."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.y: list[int] = []
        self.x: list[np.ndarray] = []

    def references(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        old = np.array(self.x, "float32").reshape(-1, x.shape[1])
        return np.concatenate([y, np.array(self.y, y.dtype)]), np.concatenate([x, old])

    def add(self, y: np.ndarray, x: np.ndarray) -> None:
        self.y = [*self.y, *y][-self.size :]
        self.x = [*self.x, *x][-self.size :]


def expected(
    loss: Any, history: History, y: np.ndarray, x: np.ndarray, weight: Any = None
) -> tuple[Any, list[np.ndarray]]:
    """The loss against the history, and its gradient: of the batch as anchors and references."""
    ref_y, ref_x = history.references(y, x)
    old = ref_x[len(x) :]

    def call(x: Any) -> Any:
        ref_x = ops.concatenate([x, ops.convert_to_tensor(old)])
        return loss(y, x, weight, ref_labels=ref_y, ref_embeddings=ref_x)

    return value_and_gradients(call, x)


@functools.lru_cache(maxsize=1)
def stateless(memory: CrossBatchMemory) -> Any:
    """The gradient of a call on JAX, compiled once a shape."""
    import jax

    def call(x: Any, state: Any, y: Any, weight: Any) -> Any:
        value, state = memory.stateless_call([], state, y, x, weight)
        return ops.sum(value), (value, state)

    return jax.jit(jax.value_and_grad(call, has_aux=True))


def actual(
    memory: CrossBatchMemory, y: np.ndarray, x: np.ndarray, weight: Any = None
) -> tuple[Any, list[np.ndarray]]:
    """The loss with the memory, which then holds the batch, and its gradient."""
    if BACKEND != "jax":
        return value_and_gradients(lambda x: memory(y, x, weight), x)
    state = [v.value for v in memory.non_trainable_variables]
    (_, (value, state)), dx = stateless(memory)(x, state, y, weight)
    for variable, new in zip(memory.non_trainable_variables, state, strict=True):
        variable.assign(new)
    return np.asarray(value), [np.asarray(dx)]


# Of each form, and those that compute more of a memory than distances to it.
IN_BLOCKS = ("circle", "lifted", "angular", "triplet_swap", "triplet_all_semi_hard")


@pytest.mark.parametrize(
    ("case", "block_size"),
    [(case, None) for case in ENGINE] + [(case, 4) for case in CASES if case.name in IN_BLOCKS],
    ids=str,
)
def test_every_loss_against_a_history(case: Any, block_size: int | None) -> None:
    """Partly filled, then full and wrapped around; in blocks, which a backward pass computes again.

    The memory has been written over by then.
    """
    loss = case.build(block_size=block_size)
    history, memory = History(10), CrossBatchMemory(loss, 10, D)
    for k, (y, x) in enumerate(stream([6, 6, 6])):
        got, got_gradients = actual(memory, y, x)
        if k:
            value, gradients = expected(case.build(), history, y, x)
            assert_close(got, value, 2e-5, "value")
            assert_close(got_gradients[0], gradients[0], 2e-5, "gradient")
        history.add(y, x)


@pytest.mark.parametrize("block_size", [3, None])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_blocks_and_reductions(block_size: int | None, reduction: str) -> None:
    """With batches smaller and larger than the memory."""
    loss = losses.CircleLoss(block_size=block_size, reduction=reduction, gamma=8)
    dense = losses.CircleLoss(reduction=reduction, gamma=8)
    history, memory = History(7), CrossBatchMemory(loss, 7, D)
    for y, x in stream([5, 9, 5]):
        weight = np.arange(len(y)) % 3 + 0.5
        value, gradients = expected(dense, history, y, x, weight)
        got, got_gradients = actual(memory, y, x, weight)
        assert_close(got, value, 1e-5, "value")
        assert_close(got_gradients[0], gradients[0], 1e-5, "gradient")
        history.add(y, x)


def test_no_memory_is_the_loss_alone() -> None:
    loss = losses.CircleLoss()
    memory = CrossBatchMemory(loss, 0, D)
    for y, x in stream([6, 6]):
        assert number(memory(y, x)) == number(loss(y, x))
    assert not memory.variables


def test_warm_up() -> None:
    """Filled from the first call on, compared with from the third."""
    loss = losses.PairContrastiveLoss()
    memory, history = CrossBatchMemory(loss, 20, D, warmup=2), History(20)
    for k, (y, x) in enumerate(stream([6] * 4)):
        compared = history if k >= 2 else History(20)
        value = number(expected(loss, compared, y, x)[0])
        assert number(memory(y, x)) == pytest.approx(value, rel=1e-5)
        history.add(y, x)


def test_an_example_is_not_compared_with_its_own_copy() -> None:
    """One class: without another example, there is nothing to be near to."""
    memory = CrossBatchMemory(losses.PairContrastiveLoss(reduction="sum"), 4, 1)
    y, x = np.array([0, 1]), np.array([[0.0], [0.5]], "float32")
    assert number(memory(y, x)) == 0.0
    # Now each has a positive, in the memory, and a negative here and there.
    assert number(memory(y, x)) == pytest.approx(1.0)


def test_large_ids_stay_apart() -> None:
    loss = losses.CircleLoss(gamma=8)
    memory = CrossBatchMemory(loss, 4, D)
    ((_, x),) = stream([4])
    y = np.array([2**24, 2**24 + 1, 2**24, 2**24 + 1])
    memory(y, x)
    assert [int(v) for v in ops.convert_to_numpy(memory.labels)] == list(y)


def test_empty_slots_are_told_by_their_number() -> None:
    """Whatever label and embedding they hold."""
    loss = losses.SupConLoss()
    memory = CrossBatchMemory(loss, 6, D)
    (y, x), _ = stream([4, 4])
    memory.labels.assign(np.full(6, y[0]))
    memory.embeddings.assign(np.tile(x[:1], (6, 1)))
    assert number(memory(y, x)) == pytest.approx(number(loss(y, x)), rel=1e-6)


def encoder() -> keras.Model:
    inputs = keras.Input((8,))
    return kinfold.EmbeddingModel(inputs, kinfold.layers.L2Embedding(D)(inputs))


def test_fit_stops_saves_and_goes_on(tmp_path) -> None:
    """Stop, load, go on: bit for bit what an unbroken run gives."""
    y, x = batch(48, classes=6)[0], np.random.default_rng(0).random((48, 8), "float32")

    def fit(model: keras.Model, rows: slice) -> list[float]:
        history = model.fit(x[rows], y[rows], batch_size=8, shuffle=False, verbose=0)
        return history.history["loss"]

    keras.utils.set_random_seed(1)
    model = encoder()
    loss = losses.MultiSimilarityLoss(block_size=3)
    model.compile("adam", loss, memory_size=20, memory_warmup=1)
    fit(model, slice(0, 24))
    model.save(tmp_path / "half.keras")
    last = fit(model, slice(24, 48))
    loaded = keras.models.load_model(tmp_path / "half.keras")
    assert int(loaded.cross_batch_memory().position) == 24 % 20
    assert fit(loaded, slice(24, 48)) == last
    for a, b in zip(model.weights, loaded.weights, strict=True):
        assert np.array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))
    emptied = keras.models.load_model(tmp_path / "half.keras")
    emptied.cross_batch_memory().filled.assign(0)
    assert fit(emptied, slice(24, 48)) != last


def test_memory_size_0_equals_no_memory() -> None:
    y, x = batch(32, classes=6)[0], np.random.default_rng(0).random((32, 8), "float32")
    found = []
    for options in ({}, {"memory_size": 0}):
        keras.utils.set_random_seed(1)
        model = encoder()
        model.compile("adam", losses.CircleLoss(), **options)
        found.append(model.fit(x, y, batch_size=8, epochs=2, verbose=0).history["loss"])
    assert found[0] == found[1]


def test_evaluation_leaves_the_memory_alone() -> None:
    y, x = batch(16, classes=4)[0], np.random.default_rng(0).random((16, 8), "float32")
    loss = losses.CircleLoss()
    model = encoder()
    model.compile("sgd", loss, memory_size=12)
    model.fit(x, y, batch_size=16, verbose=0)
    before = ops.convert_to_numpy(model.cross_batch_memory().embeddings)
    found = model.evaluate(x, y, batch_size=16, verbose=0)
    assert np.array_equal(ops.convert_to_numpy(model.cross_batch_memory().embeddings), before)
    assert found == pytest.approx(number(loss(y, model.predict(x, verbose=0))), rel=1e-5)
    assert int(model.cross_batch_memory().filled) == 12


@pytest.mark.parametrize("block_size", [3, None])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_backward_pass_sees_what_the_memory_was(block_size: int | None, reduction: str) -> None:
    """Two calls, then one backward pass: the second has written over what the first looked at."""
    loss = losses.CircleLoss(gamma=8, block_size=block_size, reduction=reduction)
    (y, x), (_, old) = stream([6, 6])
    gradients = []
    for turns in ([1], [2], [1, 2]):
        memory = CrossBatchMemory(loss, 6, D)
        actual(memory, y, old)
        state = [v.value for v in memory.non_trainable_variables]

        def call(x: Any, turns: Any = turns, memory: Any = memory, state: Any = state) -> Any:
            total = 0.0
            for turn in (1, 2):
                if BACKEND == "jax":
                    value, state = memory.stateless_call([], state, y, x)
                else:
                    value = memory(y, x)
                if turn in turns:
                    total = total + ops.sum(value)
            return total

        gradients.append(value_and_gradients(call, x)[1][0])
    assert_close(gradients[0] + gradients[1], gradients[2], 1e-5, "gradient")
    assert np.abs(gradients[0] - gradients[1]).max() > 1e-3


def test_a_loss_that_looks_beside_its_pairs() -> None:
    """TensorFlow Similarity's triplets take the nearest of all where an anchor has no positive."""
    loss = tfsim.losses.TripletLoss(positive_mining_strategy="hard")
    history, memory = History(10), CrossBatchMemory(loss, 10, D)
    for y, x in stream([6, 6], classes=6):
        value, _ = expected(loss, history, y, x)
        assert_close(actual(memory, y, x)[0], value, 1e-5, "value")
        history.add(y, x)


def test_a_loop_of_ones_own() -> None:
    """Without Keras's fit: compiled and with its state kept apart, or as a module of PyTorch."""
    loss, batches = losses.CircleLoss(gamma=8, block_size=2), stream([6, 6, 6])
    memory, again = (CrossBatchMemory(loss, 10, D, name="memory") for _ in range(2))
    values = [number(memory(y, x)) for y, x in batches]
    if BACKEND == "jax":
        import jax

        step = jax.jit(lambda state, y, x: again.stateless_call([], state, y, x))
        state = [v.value for v in again.non_trainable_variables]
        for (y, x), value in zip(batches, values, strict=True):
            got, state = step(state, y, x)
            assert number(got) == pytest.approx(value, rel=1e-6)
    elif BACKEND == "torch":
        for y, x in batches[:2]:
            again(y, x)
        third = CrossBatchMemory(loss, 10, D, name="memory")
        third.load_state_dict(again.state_dict())
        assert number(third(*batches[2])) == values[2]
    else:
        import tensorflow as tf

        step = tf.function(lambda y, x: again(y, x))
        for (y, x), value in zip(batches, values, strict=True):
            got = step(tf.constant(y), tf.constant(x))
            assert number(got) == pytest.approx(value, rel=1e-6)


def test_values_in_place_of_the_variables() -> None:
    """A stateless call leaves the memory itself alone, on every backend."""
    (y, x), _ = stream([6, 6])
    memory = CrossBatchMemory(losses.CircleLoss(), 10, D)
    state = [ops.copy(v) for v in memory.non_trainable_variables]
    _, state = memory.stateless_call([], state, y, x)
    assert number(memory.filled) == 0
    filled = [v.path for v in memory.non_trainable_variables].index(memory.filled.path)
    assert int(state[filled]) == 6


class Subclass(kinfold.EmbeddingModel):
    """A model whose output is not known before it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = kinfold.layers.L2Embedding(D)

    def build(self, input_shape: Any) -> None:
        self.embed.build(input_shape)

    def call(self, x: Any) -> Any:
        return self.embed(x)


@pytest.mark.parametrize("built", [False, True])
def test_a_model_of_its_own_class(built: bool) -> None:
    y, x = batch(16, classes=4)[0], np.random.default_rng(0).random((16, 8), "float32")
    model = Subclass()
    if built:
        model.build((None, 8))
    model.compile("sgd", losses.CircleLoss(), memory_size=12)
    model.fit(x, y, batch_size=8, verbose=0)
    assert int(model.cross_batch_memory().filled) == 12
    assert model.cross_batch_memory().embedding_size == D


def test_compiling_again_drops_the_memory() -> None:
    model = encoder()
    model.compile("sgd", losses.CircleLoss(), memory_size=12)
    with_memory = len(model.variables)
    model.compile("sgd", losses.CircleLoss(), memory_size=8)
    assert len(model.variables) == with_memory
    assert model.cross_batch_memory().size == 8
    model.compile("sgd", losses.CircleLoss())
    assert model.cross_batch_memory() is None
    assert len(model.variables) == with_memory - 5


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy: str) -> None:
    """The memory keeps float32, whatever the policy."""
    y, x = batch(16, classes=4)[0], np.random.default_rng(0).random((16, 8), "float32")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = encoder()
        model.compile("sgd", losses.CircleLoss(), memory_size=12)
        history = model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    finally:
        keras.config.set_dtype_policy(before)
    assert np.isfinite(history.history["loss"]).all()
    assert keras.backend.standardize_dtype(model.cross_batch_memory().embeddings.dtype) == "float32"


def test_weights_with_and_without_a_memory(tmp_path) -> None:
    y, x = batch(16, classes=4)[0], np.random.default_rng(0).random((16, 8), "float32")
    model = encoder()
    model.compile("sgd", losses.CircleLoss(), memory_size=12)
    model.fit(x, y, batch_size=8, verbose=0)
    model.save_weights(tmp_path / "with.weights.h5")
    bare = encoder()
    bare.compile("sgd", losses.CircleLoss())
    bare.fit(x, y, batch_size=8, verbose=0)
    bare.save_weights(tmp_path / "without.weights.h5")

    other = encoder()
    other.compile("sgd", losses.CircleLoss(), memory_size=12)
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "with.weights.h5")
    for a, b in zip(model.weights, other.weights, strict=True):
        assert np.array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))
    other.load_weights(tmp_path / "without.weights.h5")
    assert int(other.cross_batch_memory().filled) == 0
    other.compile("sgd", losses.CircleLoss(), memory_size=8)
    other.optimizer.build(other.trainable_variables)
    with pytest.raises(ValueError, match="a memory of 12 embeddings of size 4, and this one is of"):
        other.load_weights(tmp_path / "with.weights.h5")


class TwoInputs(kinfold.EmbeddingModel):
    """Built by its first call, with a dict: no memory can be made before that."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = kinfold.layers.L2Embedding(D)

    def call(self, inputs: Any) -> Any:
        return self.embed(inputs["a"] + inputs["b"])


def test_weights_loaded_before_the_first_step(tmp_path) -> None:
    y, a = batch(16, classes=4)[0], np.random.default_rng(0).random((16, 8), "float32")
    x = {"a": a, "b": a}

    def make(size: int = 12) -> keras.Model:
        model = TwoInputs()
        model.compile("sgd", losses.CircleLoss(), memory_size=size)
        model({"a": a[:1], "b": a[:1]})
        return model

    model, path = make(), tmp_path / "of.weights.h5"
    model.save_weights(tmp_path / "empty.weights.h5")
    model.fit(x, y, batch_size=8, verbose=0)
    model.save_weights(path)
    again = make()
    again.load_weights(path)
    for name in ("embeddings", "labels", "filled", "position"):
        first, second = (getattr(m.cross_batch_memory(), name) for m in (model, again))
        assert np.array_equal(ops.convert_to_numpy(first), ops.convert_to_numpy(second))
    again.load_weights(tmp_path / "empty.weights.h5")
    assert int(again.cross_batch_memory().filled) == 0
    with pytest.raises(ValueError, match="a memory of 12 embeddings of size 4"):
        make(8).load_weights(path)
    bare = make(0)
    bare.load_weights(path)
    assert bare.cross_batch_memory() is None


def test_a_memory_of_unknown_size_is_not_lost_in_silence(tmp_path) -> None:
    model = TwoInputs()
    model.compile("sgd", losses.CircleLoss(), memory_size=8)
    ones = np.ones((2, 8), "float32")
    model({"a": ones, "b": ones})
    model.save_weights(tmp_path / "of.weights.h5")
    model.get_build_config = lambda: None
    with pytest.raises(ValueError, match="is not known before its first step"):
        model.load_weights(tmp_path / "of.weights.h5")


@pytest.mark.parametrize("options", [None, {}, {"memory_size": 12}])
def test_pickling(options: dict | None) -> None:
    y, x = batch(16, classes=4)[0], np.random.default_rng(0).random((16, 8), "float32")
    model = encoder()
    if options is not None:
        loss = losses.CircleLoss() if options else losses.ArcFaceLoss(4, D)
        model.compile("adam", loss, **options)
        model.fit(x, y, batch_size=8, verbose=0)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert type(again) is type(model)
        assert len(again.variables) == len(model.variables)
        for a, b in zip(model.variables, again.variables, strict=True):
            assert np.array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))
    clone = keras.models.clone_model(model)
    assert [v.path for v in clone.variables] == [v.path for v in model.variables]


def test_refused() -> None:
    with pytest.raises(TypeError, match="`loss` must be a PairLoss"):
        CrossBatchMemory(keras.losses.MeanSquaredError(), 4, D)
    with pytest.raises(ValueError, match="`size` must be a whole number of at least 0"):
        CrossBatchMemory(losses.CircleLoss(), -1, D)
    (y, x), _ = stream([4, 4])
    with pytest.raises(ValueError, match="with embedding_size=3"):
        CrossBatchMemory(losses.CircleLoss(), 4, 3)(y, x)
    with pytest.raises(TypeError, match="takes no references"):
        CrossBatchMemory(losses.NPairsLoss(), 4, D)
    with pytest.raises(ValueError, match=r"`y_true` must have shape \[batch\]"):
        CrossBatchMemory(losses.CircleLoss(), 4, D)(np.eye(4, dtype="int32"), x)
    with pytest.raises(ValueError, match="`memory_size` must be a whole number"):
        encoder().compile("sgd", losses.CircleLoss(), memory_size=-4)
    with pytest.raises(TypeError, match="must be a PairLoss"):
        encoder().compile("sgd", "mse", memory_size=4)
    with pytest.raises(ValueError, match="one loss"):
        encoder().compile("sgd", [losses.CircleLoss(), losses.CircleLoss()], memory_size=4)


def test_config() -> None:
    memory = CrossBatchMemory(losses.CircleLoss(margin=0.3), 4, D, warmup=3)
    again = CrossBatchMemory.from_config(memory.get_config())
    assert again.get_config() == memory.get_config()
    assert again.loss.margin == 0.3


@pytest.mark.parametrize("wrong", [np.inf, np.nan])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_rows_that_are_not_finite_are_not_remembered(wrong: float, reduction: str) -> None:
    """One overflow, which a step under loss scaling survives, spoils no later step."""
    loss = losses.CircleLoss(gamma=8, reduction=reduction, normalize=True)
    history, memory = History(10), CrossBatchMemory(loss, 10, D)
    for k, (y, x) in enumerate(stream([6, 6, 6, 6])):
        given = x.copy()
        if k == 1:
            given[2, 1] = given[5, 0] = wrong
        got, _ = actual(memory, y, given)
        fine = np.isfinite(given).all(1)
        if fine.all():
            assert_close(got, expected(loss, history, y, x)[0], 2e-5, "value")
        else:
            assert not np.isfinite(got).any()
        history.add(y[fine], x[fine])
    assert int(memory.filled) == 10
    assert int(memory.position) == (6 + 4 + 6 + 6) % 10


def test_a_loss_that_wraps_its_own_value() -> None:
    """A memory calls the loss as anyone does, so what a subclass makes of its value stays."""

    class Twice(losses.CircleLoss):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return 2.0 * super().__call__(*args, **kwargs)

    of_one, of_two = (CrossBatchMemory(kind(gamma=8), 10, D) for kind in (losses.CircleLoss, Twice))
    shaped = CrossBatchMemory(tfsim.losses.CircleLoss(reduction="none"), 10, D)
    for y, x in stream([6, 6]):
        assert number(of_two(y, x)) == pytest.approx(2 * number(of_one(y, x)), rel=1e-6)
        assert tuple(shaped(y, x).shape) == (6, 1)


def test_rows_are_remembered_as_they_are_compared() -> None:
    memory = CrossBatchMemory(losses.CircleLoss(normalize=True), 4, D)
    y, x = stream([4])[0]
    memory(y, 3.0 * x)
    norms = np.linalg.norm(ops.convert_to_numpy(memory.embeddings), axis=1)
    np.testing.assert_allclose(norms, 1.0, rtol=1e-5)
