"""Losses over paired embeddings, against the dense equations in NumPy."""

import json
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kinfold
from cases import batch
from kinfold import layers, losses
from native import BACKEND, assert_close, float64, number, value_and_gradients

N = 11


def sides(dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    return batch(N, dtype=dtype)[1], batch(N, seed=1, dtype=dtype)[1]


def _row_sums(s: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(s, axis=1) - np.diag(s)


def info_nce(x: np.ndarray, r: np.ndarray, both: bool, log_scale: float) -> np.ndarray:
    s = np.exp(log_scale) * x @ r.T
    return (_row_sums(s) + _row_sums(s.T)) / 2 if both else _row_sums(s)


def sig_lip(x: np.ndarray, r: np.ndarray, log_scale: float, bias: float) -> np.ndarray:
    s = np.exp(log_scale) * x @ r.T + bias
    return np.logaddexp(0, np.where(np.eye(len(s)), -s, s)).sum(axis=1)


# Name: how to build it with all that can be trained trained, and its equation on the variables.
TABLE: dict[str, tuple[Any, Any]] = {
    "one_direction": (
        lambda **k: losses.InfoNCELoss(0.05, False, True, **k),
        lambda x, r, t: info_nce(x, r, False, t),
    ),
    "both_directions": (
        lambda **k: losses.InfoNCELoss(0.05, True, True, **k),
        lambda x, r, t: info_nce(x, r, True, t),
    ),
    "sig_lip": (lambda **k: losses.SigLIPLoss(7.0, -3.0, **k), sig_lip),
}
every_loss = pytest.mark.parametrize("name", TABLE)
weight = np.linspace(0.0, 2.0, N)


@every_loss
@pytest.mark.parametrize("block_size", [None, 1, 4])
def test_value_and_every_gradient(name: str, block_size: int | None) -> None:
    build, equation = TABLE[name]
    x, r = sides("float64")
    with float64():
        loss = build(dtype="float64", block_size=block_size)
        variables = [ops.convert_to_numpy(v) for v in loss.trainable_variables]
        value, gradients = value_and_gradients(
            lambda x, r, *v: loss.stateless_call(v, None, x, weight, ref_embeddings=r),
            x,
            r,
            *variables,
        )
    arguments = [x, r, *variables]
    assert_close(value, (equation(*arguments) * weight).mean(), 1e-9)
    step, rng = 1e-6, np.random.default_rng(2)
    for i, gradient in enumerate(gradients):
        direction = rng.normal(size=gradient.shape)
        moved = [
            [a + s * step * direction if i == j else a for j, a in enumerate(arguments)]
            for s in (1, -1)
        ]
        up, down = ((equation(*m) * weight).mean() for m in moved)
        assert_close((gradient * direction).sum(), (up - down) / (2 * step), 1e-6)


@every_loss
@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight", "none", None])
def test_reductions(name: str, reduction: str | None) -> None:
    build, equation = TABLE[name]
    x, r = sides()
    loss = build(reduction=reduction, block_size=3)
    rows = equation(x, r, *(number(v) for v in loss.trainable_variables)) * weight
    wanted = {"sum": rows.sum(), "mean_with_sample_weight": rows.sum() / weight.sum()}
    got = loss(None, np.stack([x, r], axis=1), weight)
    assert_close(ops.convert_to_numpy(got), wanted.get(reduction or "none", rows), 1e-5)


def test_rows_differentiate_as_their_mean_does() -> None:
    x, r = sides()
    mean, rows = (losses.InfoNCELoss(0.05, reduction=k, block_size=4) for k in ("mean", None))
    _, expected = value_and_gradients(lambda x, r: mean(None, x, ref_embeddings=r), x, r)
    _, got = value_and_gradients(lambda x, r: rows(None, x, ref_embeddings=r), x, r)
    for a, b in zip(got, expected, strict=True):
        assert_close(a / N, b, 1e-5)


def test_cold_and_half_precision_stay_exact() -> None:
    x, r = sides()
    loss = losses.InfoNCELoss(0.002, normalize=True)
    for dtype in ("float32", "float16"):
        half = [ops.cast(side, dtype) for side in (x, r)]
        given = [ops.convert_to_numpy(side).astype("float64") for side in half]
        unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in given]
        wanted = info_nce(*unit, True, -np.log(0.002)).mean()
        assert_close(number(loss(None, half[0], ref_embeddings=half[1])), wanted, 1e-5)


def test_bad_input_and_config() -> None:
    x, r = sides()
    loss = losses.InfoNCELoss()
    with pytest.raises(ValueError, match="both sides of each pair"):
        loss(None, x)
    with pytest.raises(ValueError, match="same number of rows"):
        loss(None, x, ref_embeddings=r[:5])
    with pytest.raises(ValueError, match="same number of columns"):
        loss(None, x, ref_embeddings=r[:, :5])
    with pytest.raises(ValueError, match="`temperature` must be greater than 0"):
        losses.InfoNCELoss(0.0)
    for build, _ in TABLE.values():
        made = build(name="mine", normalize=True)
        config = json.loads(json.dumps(made.get_config()))
        assert type(made).from_config(config).get_config() == made.get_config()


@every_loss
def test_fit_trains_two_towers_and_the_temperature(name: str, tmp_path) -> None:
    keras.utils.set_random_seed(0)
    _, x = batch(32)
    left, right = keras.Input((8,)), keras.Input((8,))
    towers = [layers.L2Embedding(6)(side) for side in (left, right)]
    model = kinfold.EmbeddingModel([left, right], ops.stack(towers, axis=1))
    model.compile(keras.optimizers.Adam(0.05), loss=TABLE[name][0]())
    start = [number(v) for v in model.loss.trainable_variables]
    assert all(any(v is w for w in model.trainable_variables) for v in model.loss.layer.weights)
    noisy, unused = x + 0.1 * batch(32, seed=2)[1], np.zeros(32, "int32")
    fitted = model.fit([x, noisy], unused, batch_size=16, epochs=6, shuffle=False, verbose=0)
    assert fitted.history["loss"][-1] < fitted.history["loss"][0]
    assert all(number(v) != s for v, s in zip(model.loss.trainable_variables, start, strict=True))


def test_inside_a_compiled_step() -> None:
    if BACKEND == "torch":
        import torch

        def jit(fn: Any) -> Any:
            return torch.compile(fn, backend="aot_eager")
    elif BACKEND == "jax":
        import jax

        jit = jax.jit
    else:
        import tensorflow as tf

        def jit(fn: Any) -> Any:
            return tf.function(fn, jit_compile=True)

    x, r = (ops.convert_to_tensor(side) for side in sides())
    for loss in (losses.InfoNCELoss(block_size=3), losses.SigLIPLoss(train_scale_and_bias=False)):
        compiled = jit(lambda x, r, loss=loss: loss(None, x, ref_embeddings=r))
        expected = number(loss(None, x, ref_embeddings=r))
        assert_close(ops.convert_to_numpy(compiled(x, r)), expected, 1e-6)


@every_loss
def test_empty_batches_and_overflows(name: str) -> None:
    x, r = sides()
    loss = TABLE[name][0]()
    assert loss.trainable_variables
    assert number(loss(None, x[:0], ref_embeddings=r[:0])) == 0.0
    for side in (0, 1):
        given = [x.copy(), r.copy()]
        given[side][2, 3] = np.inf
        assert not np.isfinite(number(loss(None, given[0], ref_embeddings=given[1])))
