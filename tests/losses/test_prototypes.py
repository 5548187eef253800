"""Losses with trainable prototypes: their equations, their training, their files."""

import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import kinfold
from cases import batch
from golden_cases import Golden, cases
from kinfold import layers, losses
from kinfold.compat.pytorch_metric_learning import losses as pml
from kinfold.core import backends
from native import BACKEND, assert_close, float64, number, value_and_gradients

CLASSES, D, CENTERS = 9, 8, 3


def _lse(z: np.ndarray) -> float:
    return float(np.logaddexp.reduce(z))


def _arc(s: float, margin: float = 0.5) -> float:
    angle = np.arccos(np.clip(s, -1, 1))
    return np.cos(angle + margin) if angle + margin <= np.pi else s - margin * np.sin(margin)


def _psi(s: float, margin: int = 4) -> float:
    angle = np.arccos(np.clip(s, -1, 1))
    k = np.floor(angle * margin / np.pi)
    return (-1) ** k * np.cos(margin * angle) - 2 * k


def _soft(q: np.ndarray) -> float:
    e = np.exp((q - q.max()) / 0.1)
    return float((e / e.sum()) @ q)


def _softmax(
    positive: Callable[[float], float],
    negative: Callable[[Any], Any],
    of_class: Callable[[np.ndarray], float] = lambda q: float(q[0]),
) -> Callable[..., np.ndarray]:
    """Loss of each example, from cosines [classes, centers]."""

    def rows(y: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        found = []
        for label, one in zip(y, x, strict=True):
            s = np.array([of_class(centers @ one) for centers in w])
            own, other = positive(s[label]), negative(np.delete(s, label))
            found.append(_lse(np.array([own, *other])) - own)
        return np.array(found)

    return rows


def _multiplied(prototypes_keep_norms: bool) -> Callable[..., np.ndarray]:
    """Loss of each example, from examples and prototypes of any norm, with a multiplied angle."""

    def rows(y: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        found, norms = [], np.linalg.norm(w[:, 0], axis=1)
        for label, one in zip(y, x, strict=True):
            length = np.linalg.norm(one) * (norms if prototypes_keep_norms else np.ones_like(norms))
            cosine = w[:, 0] @ one / (norms * np.linalg.norm(one))
            own, other = length[label] * _psi(cosine[label]), np.delete(length * cosine, label)
            found.append(_lse(np.array([own, *other])) - own)
        return np.array(found)

    return rows


def _squares(y: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return ((x @ w[:, 0].T - np.eye(len(w))[y]) ** 2).mean(axis=1)


def _spread(w: np.ndarray) -> float:
    k = w.shape[1]
    pairs = [
        np.sqrt(max(2 - 2 * c[a] @ c[b], 0) + 1e-5) for c in w for a in range(k) for b in range(a)
    ]
    return 0.2 * sum(pairs) / (len(w) * k * (k - 1))


def _soft_triple(y: np.ndarray, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return _softmax(lambda s: 20 * (s - 0.01), lambda s: 20 * s, _soft)(y, x, w) + _spread(w)


def _proxy_anchor(
    y: np.ndarray, x: np.ndarray, w: np.ndarray, weight: np.ndarray | None = None
) -> float:
    s = w[:, 0] @ x.T
    weight = np.ones(len(y)) if weight is None else weight
    here = np.array([weight[y == c].sum() > 0 for c in range(len(w))])
    near = [np.log1p((weight * np.exp(-32 * (s[c] - 0.1)))[y == c].sum()) for c in range(len(w))]
    far = [np.log1p((weight * np.exp(32 * (s[c] + 0.1)))[y != c].sum()) for c in range(len(w))]
    return sum(near) / here.sum() + sum(far) / len(w)


# Name, how to build it, its equation in NumPy on unit rows.
TABLE: dict[str, tuple[Callable[..., losses.PrototypeLoss], Callable[..., Any]]] = {
    "arc_face": (losses.ArcFaceLoss, _softmax(lambda s: 64 * _arc(s), lambda s: 64 * s)),
    "sub_centers": (
        lambda *a, **k: losses.ArcFaceLoss(*a, **{"sub_centers": CENTERS, "scale": 20.0, **k}),
        _softmax(lambda s: 20 * _arc(s), lambda s: 20 * s, lambda q: float(q.max())),
    ),
    "cos_face": (losses.CosFaceLoss, _softmax(lambda s: 64 * (s - 0.35), lambda s: 64 * s)),
    "normalized_softmax": (
        losses.NormalizedSoftmaxLoss,
        _softmax(lambda s: s / 0.05, lambda s: s / 0.05),
    ),
    "sphere_face": (losses.SphereFaceLoss, _multiplied(prototypes_keep_norms=False)),
    "large_margin_softmax": (
        losses.LargeMarginSoftmaxLoss,
        _multiplied(prototypes_keep_norms=True),
    ),
    "p2s_grad": (losses.P2SGradLoss, _squares),
    "proxy_nca": (
        losses.ProxyNCALoss,
        _softmax(lambda s: -9 * (2 - 2 * s), lambda s: -9 * (2 - 2 * s)),
    ),
    "soft_triple": (
        lambda *a, **k: losses.SoftTripleLoss(*a, **{"centers_per_class": CENTERS, **k}),
        _soft_triple,
    ),
    "proxy_anchor": (losses.ProxyAnchorLoss, _proxy_anchor),
}
WITH_NORMS = ("sphere_face", "large_margin_softmax")
every_loss = pytest.mark.parametrize("name", TABLE)
by_example = pytest.mark.parametrize("name", [n for n in TABLE if n != "proxy_anchor"])


def made(which: str, /, **kwargs: Any) -> losses.PrototypeLoss:
    keras.utils.set_random_seed(3)
    loss = TABLE[which][0](CLASSES, D, **kwargs)
    assert len(loss.trainable_variables) == 1
    return loss


def prototypes(loss: losses.PrototypeLoss) -> np.ndarray:
    return ops.convert_to_numpy(loss.trainable_variables[0])


def expected(name: str, y: np.ndarray, x: np.ndarray, w: np.ndarray) -> Any:
    w = w.reshape(CLASSES, -1, D).astype("float64")
    x = x.astype("float64")
    if name in WITH_NORMS:
        return TABLE[name][1](y, x, w)
    unit = [a / np.linalg.norm(a, axis=-1, keepdims=True) for a in (x, w)]
    return TABLE[name][1](y, *unit)


def loss_and_gradients(loss: Any, y: np.ndarray, x: np.ndarray) -> tuple[Any, list[np.ndarray]]:
    """Value, and gradients with respect to the embeddings and to the prototypes."""
    return value_and_gradients(lambda x, w: loss.stateless_call([w], y, x), x, prototypes(loss))


@every_loss
def test_values_and_gradients_follow_the_equation(name: str) -> None:
    y, x = batch(14, d=D, classes=CLASSES - 2, dtype="float64")
    x *= np.linspace(0.2, 3.0, 14)[:, None]
    with float64():
        loss = made(name, dtype="float64", block_size=4)
        w = prototypes(loss)
        value, gradients = loss_and_gradients(loss, y, x)
    assert w.dtype == np.float64
    assert_close(value, np.mean(expected(name, y, x, w)), 1e-9)
    rng, step = np.random.default_rng(1), 1e-6
    for i, gradient in enumerate(gradients):
        direction = rng.normal(size=gradient.shape)
        at = [[x, w], [x, w]]
        at[0][i], at[1][i] = (at[0][i] + s * step * direction for s in (1, -1))
        up, down = (np.mean(expected(name, y, *arguments)) for arguments in at)
        assert_close((gradient * direction).sum(), (up - down) / (2 * step), 1e-5)


@every_loss
def test_block_size_changes_nothing(name: str) -> None:
    y, x = batch(13, d=D, classes=CLASSES)
    whole, gradients = loss_and_gradients(made(name), y, x)
    assert_close(whole, np.mean(expected(name, y, x, prototypes(made(name)))), 1e-5)
    for size in (1, 4, 9):
        value, streamed = loss_and_gradients(made(name, block_size=size), y, x)
        assert_close(value, whole, 2e-6)
        for got, one in zip(streamed, gradients, strict=True):
            assert_close(got, one, 2e-5)


GOLDEN = cases("prototypes")
BUILD: dict[str, Callable[..., losses.PrototypeLoss]] = {
    "ArcFaceLoss": lambda margin=28.6, **k: losses.ArcFaceLoss(7, 6, np.radians(margin), **k),
    "SubCenterArcFaceLoss": lambda **k: losses.ArcFaceLoss(7, 6, np.radians(28.6), **k),
    "CosFaceLoss": lambda **k: losses.CosFaceLoss(7, 6, **k),
    "NormalizedSoftmaxLoss": lambda **k: losses.NormalizedSoftmaxLoss(7, 6, **k),
    "SphereFaceLoss": lambda **k: losses.SphereFaceLoss(7, 6, **k),
    "LargeMarginSoftmaxLoss": lambda **k: losses.LargeMarginSoftmaxLoss(7, 6, **k),
    "P2SGradLoss": lambda **k: losses.P2SGradLoss(7, 6, **k),
    "ProxyNCALoss": lambda softmax_scale, **k: losses.ProxyNCALoss(7, 6, 1 / softmax_scale, **k),
    "ProxyAnchorLoss": lambda **k: losses.ProxyAnchorLoss(7, 6, **k),
    "SoftTripleLoss": lambda **k: losses.SoftTripleLoss(7, 6, regularization=0.0, **k),
}


@pytest.mark.parametrize("golden", [g for g in GOLDEN if g.case["loss"] in BUILD], ids=str)
def test_values_of_pytorch_metric_learning(golden: Golden) -> None:
    with float64():
        loss = BUILD[golden.case["loss"]](dtype="float64", **golden.case["arguments"])
        value, gradients = value_and_gradients(
            lambda x, w: loss.stateless_call([w], golden["y"], x), golden["x"], golden["w"]
        )
    # The peer scales the prototypes of P2SGrad by 1e-5 / (norm + 1e-7): to unit norm, nearly.
    rtol = 5e-7 if golden.case["loss"] == "P2SGradLoss" else 1e-9
    assert_close(value, golden["value"], rtol)
    for gradient, key in zip(gradients, ("dx", "dw"), strict=True):
        assert_close(gradient, golden[key], max(rtol, 1e-8), key)


OF_PAIRS = ("AngularLoss", "TupletMarginLoss")


@pytest.mark.parametrize("golden", [g for g in GOLDEN if g.case["loss"] in OF_PAIRS], ids=str)
def test_pair_losses_of_pytorch_metric_learning(golden: Golden) -> None:
    y, ref_y = golden["y"], golden.get("ref_y")
    loss, arrays, keys = getattr(pml, golden.case["loss"])(), [golden["x"]], ["dx"]
    if ref_y is not None:
        arrays, keys = [golden["x"], golden["ref_x"]], ["dx", "dref"]
    with float64():
        value, gradients = value_and_gradients(
            lambda x, *r: loss(x, y, None, *r, *((ref_y,) if r else ())), *arrays
        )
    assert_close(value, golden["value"], 1e-9)
    for gradient, key in zip(gradients, keys, strict=True):
        assert_close(gradient, golden[key], 1e-8, key)


@by_example
@pytest.mark.parametrize("reduction", ["sum", "mean", "mean_with_sample_weight", "none", None])
def test_weights_and_reductions(name: str, reduction: str | None) -> None:
    y, x = batch(10, d=D, classes=CLASSES)
    loss = made(name, reduction=reduction)
    rows = expected(name, y, x, prototypes(loss))
    weight = np.linspace(0.0, 2.0, 10).astype("float32")
    weighted = rows * weight
    wanted = {
        "sum": weighted.sum(),
        "mean": weighted.mean(),
        "mean_with_sample_weight": weighted.sum() / weight.sum(),
    }.get(reduction or "none", weighted)
    assert_close(ops.convert_to_numpy(loss(y, x, weight)), wanted, 1e-5)


def test_proxy_anchor_counts_an_example_by_its_weight() -> None:
    y, x = np.array([0, 0, 1, 2, 2]), batch(5, d=D)[1]
    loss = made("proxy_anchor")
    twice = np.array([0, 0, 0, 1, 2])
    weighted = loss(y, x, np.array([1.0, 2.0, 1.0, 1.0, 0.0]))
    assert_close(number(weighted), number(loss(twice, x[[0, 1, 1, 2, 3]])), 1e-6)
    with pytest.raises(ValueError, match="one number per batch"):
        made("proxy_anchor", reduction=None)


@every_loss
def test_half_precision_and_extreme_inputs_stay_finite(name: str) -> None:
    y, x = batch(6, d=D, classes=CLASSES)
    for dtype in ("float16", "bfloat16"):
        loss = made(name)
        half = ops.cast(x, dtype)
        given = ops.convert_to_numpy(ops.cast(half, "float32"))
        wanted = np.mean(expected(name, y, given, prototypes(loss)))
        assert_close(number(loss(y, half)), wanted, 1e-5)
    x[0] = 0.0
    loss = made(name)
    w = prototypes(loss)
    w[2] = 0.0
    x[1] = -w[y[1]].reshape(-1, D)[0]  # straight against its own prototype: a corner of arccos
    loss.trainable_variables[0].assign(w)
    value, gradients = loss_and_gradients(loss, y, x)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(g)) for g in gradients)


@every_loss
def test_bad_input(name: str) -> None:
    y, x = batch(6, d=D, classes=CLASSES)
    loss = made(name)
    for wrong in (y + CLASSES, y - CLASSES):
        with pytest.raises(ValueError, match=f"from 0 to {CLASSES - 1}"):
            loss(wrong, x)
    with pytest.raises(TypeError, match="integer class ids"):
        loss(y.astype("float32"), x)
    with pytest.raises(ValueError, match="embedding_size=8"):
        loss(y, x[:, :5])
    for bad in ({"num_classes": 1}, {"num_classes": 2.5}, {"embedding_size": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            TABLE[name][0](**{"num_classes": 3, "embedding_size": 4, **bad})


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # Dynamo looks at it on purpose
@pytest.mark.parametrize("name", ["arc_face", "soft_triple"])  # dynamo takes long over each
def test_an_unknown_id_in_a_compiled_step_is_nan(name: str) -> None:
    y, x = batch(6, d=D, classes=CLASSES)
    loss = made(name)

    def fn(y: Any, x: Any) -> Any:
        return 1.0 * loss(y, x)

    if BACKEND == "jax":
        import jax

        step = jax.jit(fn)
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        step = tf.function(fn, autograph=False)
    else:
        import torch

        step = torch.compile(fn, backend="aot_eager")
    given = ops.convert_to_tensor(y), ops.convert_to_tensor(x)
    assert np.isfinite(number(step(*given)))
    assert np.isnan(number(step(given[0] + CLASSES, given[1])))


@every_loss
def test_config(name: str) -> None:
    loss = made(name, name="mine", block_size=5)
    config = json.loads(json.dumps(loss.get_config()))
    again = type(loss).from_config(config)
    assert again.get_config() == loss.get_config()
    assert again.trainable_variables[0].shape == loss.trainable_variables[0].shape
    assert again.name == "mine"


def model(build: type = kinfold.EmbeddingModel) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((D,))
    return build(inputs, layers.L2Embedding(D)(inputs))


@every_loss
def test_fit_trains_saves_and_goes_on(name: str, tmp_path) -> None:
    y, x = batch(36, d=D, classes=CLASSES)
    trained = model()
    trained.compile(keras.optimizers.Adam(0.01), loss=made(name))
    before = prototypes(trained.loss)
    first = trained.evaluate(x, y, verbose=0)
    trained.fit(x, y, batch_size=12, epochs=3, shuffle=False, verbose=0)
    assert trained.evaluate(x, y, verbose=0) < first
    assert np.abs(prototypes(trained.loss) - before).max() > 1e-3
    trained.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(again, kinfold.EmbeddingModel)
    np.testing.assert_array_equal(prototypes(again.loss), prototypes(trained.loss))
    histories = [
        m.fit(x, y, batch_size=12, epochs=2, shuffle=False, verbose=0).history["loss"]
        for m in (trained, again)
    ]
    assert histories[0] == histories[1]
    alone = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert alone.predict(x, verbose=0).shape == (36, D)


def test_compiling_again_drops_the_old_prototypes() -> None:
    trained = model()
    plain = len(trained.trainable_variables)
    for name in ("arc_face", "soft_triple"):
        trained.compile("sgd", loss=made(name))
        assert len(trained.trainable_variables) == plain + 1
    trained.compile("sgd", loss=losses.CircleLoss())
    assert len(trained.trainable_variables) == plain


def test_a_plain_model_does_not_train_them_and_says_so() -> None:
    y, x = batch(12, d=D, classes=CLASSES)
    plain = model(keras.Model)
    plain.compile("sgd", loss=losses.CosFaceLoss(CLASSES, D))
    with pytest.warns(UserWarning, match="Nothing trains.*EmbeddingModel"):
        plain.fit(x, y, verbose=0)


def test_mixed_precision_keeps_prototypes_in_float32() -> None:
    y, x = batch(12, d=D, classes=CLASSES)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        trained = model()
        trained.compile("adam", loss=made("arc_face"))
        history = trained.fit(x, y, epochs=2, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy(before)
    assert np.all(np.isfinite(history))
    assert prototypes(trained.loss).dtype == np.float32


def test_bare_loop_with_native_tensors() -> None:
    y, x = batch(24, d=D, classes=CLASSES)
    loss = made("cos_face")
    (variable,) = loss.trainable_variables
    first = number(loss(y, x))
    if BACKEND == "jax":
        import jax

        step = jax.jit(jax.grad(lambda w: loss.stateless_call([w], y, x)))
        for _ in range(20):
            variable.assign(variable.value - 0.02 * step(variable.value))
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        for _ in range(20):
            with tf.GradientTape() as tape:
                value = loss(y, x)
            variable.value.assign_sub(0.02 * tape.gradient(value, variable.value))
    else:
        import torch

        optimizer = torch.optim.SGD([variable.value], lr=0.02)
        for _ in range(20):
            optimizer.zero_grad()
            loss(y, x).backward()
            optimizer.step()
    assert number(loss(y, x)) < 0.8 * first


def test_classes_are_compared_in_blocks() -> None:
    """At no time are all classes compared with the batch."""
    widths = []

    class Watched(losses.CosFaceLoss):
        def similarity(self, x, prototypes):
            widths.append(prototypes.shape[0])
            return super().similarity(x, prototypes)

    y, x = batch(512, classes=7)
    loss = Watched(num_classes=20_000, embedding_size=8)
    value, gradients = loss_and_gradients(loss, y, x)
    assert np.isfinite(value)
    assert np.abs(gradients[1]).max() > 0
    assert widths
    assert max(widths) <= backends.module("kinfold.streaming").PAIRS // 512 + 1


@every_loss
def test_empty_batches_and_overflows(name: str) -> None:
    y, x = batch(6, classes=CLASSES)
    loss = made(name)
    empty = number(loss(y[:0], x[:0]))
    assert np.isfinite(empty) if name == "proxy_anchor" else empty == 0.0
    for wrong in (np.inf, np.nan):
        given = x.copy()
        given[2, 3] = wrong
        assert not np.isfinite(number(loss(y, given)))
        if name != "proxy_anchor":
            rows = ops.convert_to_numpy(made(name, reduction="none")(y, given))
            assert list(np.isfinite(rows)) == [i != 2 for i in range(6)]
