"""TensorFlow Similarity's losses of two views, its names, and TensorFlow Addons' n-pairs."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from kinfold import distances as ours
from kinfold.compat import tensorflow_addons as tfa
from kinfold.compat import tensorflow_similarity as tfsim
from kinfold.core import backends
from native import BACKEND, assert_close, float64, value_and_gradients

GOLDEN = Path(__file__).parent.parent / "golden" / "tf_legacy.npz"
VIEWS = ["SimCLRLoss", "SimSiamLoss", "Barlow", "VicReg", "MultiNegativesRankLoss"]
NPAIRS = {
    "npairs_loss": tfa.losses.NpairsLoss,
    "npairs_multilabel_loss": tfa.losses.NpairsMultilabelLoss,
}
every_loss = pytest.mark.parametrize("name", VIEWS)


def build(name: str, /, **kwargs: Any) -> Any:
    return getattr(tfsim.losses, name)(**kwargs)


def golden(names: Any) -> list[Any]:
    with np.load(GOLDEN) as f:
        table = [c for c in json.loads(str(f["cases"])) if c["loss"] in names]
        keys = ("y", "x", "rows", "dx", "value")
        return [
            pytest.param(
                c, *(f.get(f"{c['name']}/{key}") for key in keys), id=f"{c['name']}-{c['loss']}"
            )
            for c in table
        ]


def views(n: int = 13, d: int = 6, unit: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    za, zb = (rng.normal(size=(n, d)).astype("float32") for _ in range(2))
    zb = (za + zb).astype("float32")
    if unit:
        za, zb = unit_rows(za).astype("float32"), unit_rows(zb).astype("float32")
    return za, zb


def unit_rows(z: np.ndarray) -> np.ndarray:
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def oracle(name: str, za: np.ndarray, zb: np.ndarray, temperature: float = 0.05) -> np.ndarray:
    """Each loss without reduction, in float64, one example at a time where it has such."""
    a, b = za.astype(float), zb.astype(float)
    n, d = a.shape
    if name == "SimCLRLoss":
        z = unit_rows(np.concatenate([a, b]))
        rows = np.zeros(n)
        for i in range(2 * n):
            own = z[i] @ z[(i + n) % (2 * n)]
            terms = [(z[i] @ z[j] - own) / temperature for j in range(2 * n) if j != i]
            rows[i % n] += np.logaddexp.reduce(terms)
        return rows
    if name == "SimSiamLoss":
        return -0.5 * np.sum(unit_rows(a) * unit_rows(b), axis=1) + 0.001
    if name == "MultiNegativesRankLoss":
        s = 20.0 * a @ b.T
        return np.array(
            [[np.logaddexp.reduce([0.0, *s[i]]) - s[j, j] for j in range(n)] for i in range(n)]
        )
    if name == "Barlow":
        c = np.corrcoef(a.T, b.T)[:d, d:]
        off = np.sum(c**2) - np.sum(np.diag(c) ** 2)
        return np.asarray(np.sum((1 - np.diag(c)) ** 2) + 5e-3 * off + 1e-12)
    shared = 0.0
    for z in (a, b):
        c = np.cov(z.T)
        shared += 12.5 * np.mean(np.maximum(0, 1 - np.sqrt(np.var(z, axis=0) + 1e-4)))
        shared += (np.sum(c**2) - np.sum(np.diag(c) ** 2)) / d
    return 25.0 * np.mean((a - b) ** 2, axis=1) + shared


@pytest.mark.parametrize(("case", "za", "zb", "rows", "dx", "mean"), golden(VIEWS))
def test_golden_values_and_gradients(case, za, zb, rows, dx, mean) -> None:
    loss = build(case["loss"], **case["kwargs"], reduction="none")
    got, (gradient,) = value_and_gradients(lambda zb: loss(za, zb), zb)
    assert_close(got, rows, 1e-5, "rows")
    assert_close(gradient, dx, 1e-5, "gradient")
    if not case["kwargs"]:
        assert_close(call(case["loss"], za, zb), mean, 1e-5, "default reduction")


def joined(*parts: Any) -> Any:
    return ops.concatenate([ops.reshape(part, (-1,)) for part in parts])


@pytest.mark.parametrize(("case", "y", "s", "rows", "ds", "_"), golden(NPAIRS))
def test_golden_npairs(case, y, s, rows, ds, _) -> None:
    for loss in (getattr(tfa.losses, case["loss"]), NPAIRS[case["loss"]]()):
        got, (gradient,) = value_and_gradients(lambda s, loss=loss: loss(y, s), s)
        assert_close(got, rows, 1e-5, "value")
        assert_close(gradient, ds, 1e-5, "gradient")


@every_loss
def test_float64_is_kept(name: str) -> None:
    za, zb = (z.astype("float64") for z in views())
    with float64():
        loss = build(name, reduction="none", dtype="float64")
        rows = value(loss.call, za, zb)
    assert_close(rows, oracle(name, za, zb), 1e-11)


@pytest.mark.parametrize("name", ["SimCLRLoss", "MultiNegativesRankLoss"])
def test_streamed_equals_dense(name: str, monkeypatch) -> None:
    za, zb = views(unit=True)
    weight = np.linspace(0.2, 1.5, len(za)).astype("float32")
    results = []
    for pairs in (2**20, 40):  # one block, then blocks of 8 rows, the last one partial
        monkeypatch.setattr(backends.module("kinfold.streaming"), "PAIRS", pairs)
        rows, mean = build(name, reduction="none"), build(name)

        def both(za, zb, weight, rows=rows, mean=mean):
            return joined(rows(za, zb, weight), 50.0 * mean(za, zb, weight))

        results.append(value_and_gradients(both, za, zb, weight))
    (dense, dense_gradients), (streamed, streamed_gradients) = results
    assert_close(streamed, dense, 2e-6)
    for got, expected in zip(streamed_gradients, dense_gradients, strict=True):
        assert_close(got, expected, 2e-5)


@every_loss
def test_weights_and_reductions(name: str) -> None:
    za, zb = views(unit=True)
    rows = oracle(name, za, zb)
    if rows.ndim == 0:
        assert_close(call(name, za, zb, 3.0), 3.0 * rows, 1e-5)
        return
    weight = np.linspace(0.2, 1.5, len(za)).astype("float32")
    weighted = (rows.T * weight).T
    expected = {
        "auto": weighted.mean(),
        "sum": weighted.sum(),
        "mean_with_sample_weight": weighted.sum() / (weight.sum() * rows[0].size),
    }
    losses = [build(name, reduction=reduction) for reduction in expected]
    got = value(lambda za, zb: joined(*(loss(za, zb, weight) for loss in losses)), za, zb)
    for one, (reduction, reduced) in zip(got, expected.items(), strict=True):
        assert_close(one, reduced, 1e-5, reduction)
    assert_close(call(name, za, zb, weight, reduction=None), weighted, 1e-5)


def value(fn: Any, *arrays: Any) -> np.ndarray:
    if BACKEND == "jax":
        import jax

        fn = jax.jit(fn)  # quicker than op by op, where each new shape compiles each op anew
    result = fn(*(ops.convert_to_tensor(a) for a in arrays))
    return ops.convert_to_numpy(result)


def call(name: str, za: Any, zb: Any, weight: Any = None, /, **kwargs: Any) -> np.ndarray:
    loss = build(name, **kwargs)
    return value(lambda za, zb: loss(za, zb, weight), za, zb)


@every_loss
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_views_are_summed_in_float32(name: str, dtype: str) -> None:
    za, zb = (
        ops.convert_to_numpy(ops.cast(ops.cast(z, dtype), "float32")) for z in views(unit=True)
    )
    half = [ops.cast(z, dtype) for z in (za, zb)]
    expected = oracle(name, za, zb)
    full, rounded = build(name, reduction="none"), build(name, reduction="none", dtype=dtype)
    got = value(lambda za, zb: joined(full(za, zb), ops.cast(rounded(za, zb), "float32")), *half)
    assert_close(got[: expected.size], expected.ravel(), 1e-5)
    # Only the result is rounded: what is summed, is summed in float32.
    assert_close(got[expected.size :], expected.ravel(), 2.0**-8)


def test_simclr_is_exact_when_cold() -> None:
    za, zb = views(unit=True)
    expected = oracle("SimCLRLoss", za, zb, 0.005)
    assert_close(call("SimCLRLoss", za, zb, temperature=0.005, reduction="none"), expected, 1e-6)
    # Where every example finds its other view, the loss is tiny and keeps its digits.
    za = np.eye(6, dtype="float32")
    got = call("SimCLRLoss", za, za, temperature=0.05)
    assert got == pytest.approx(2 * 10 * np.exp(-20.0), rel=1e-4)


@every_loss
def test_finite_on_duplicates_zeros_and_a_batch_of_one(name: str) -> None:
    za = np.zeros((4, 4), "float32")
    za[:2] = 0.5
    loss = build(name, reduction="none")
    rows, gradients = value_and_gradients(
        lambda za, zb: joined(loss(za, zb), loss(za[:1], zb[:1])), za, za.copy()
    )
    for values in (rows, *gradients):
        assert np.all(np.isfinite(values))


def test_simsiam_angles() -> None:
    za, zb = views()
    s = np.sum(unit_rows(za) * unit_rows(zb), axis=1)
    got = call("SimSiamLoss", za, zb, projection_type="angular_distance", reduction="none")
    assert_close(got, 0.5 * np.arccos(s) / np.pi + 0.001, 1e-5)
    got = call("SimSiamLoss", za, zb, projection_type="cosine_distance", reduction="none")
    assert_close(got, 0.5 * (1 - s) + 0.001, 1e-5)
    loss = build("SimSiamLoss", projection_type="angular_distance", margin=0.0, reduction="none")
    unit = np.eye(4, dtype="float32")
    rows, gradients = value_and_gradients(
        lambda a, b: loss(a, b), np.concatenate([unit, unit]), np.concatenate([unit, -unit])
    )
    assert_close(rows, [0.0] * 4 + [0.5] * 4, 1e-6)
    assert np.all(np.isfinite(gradients))


@every_loss
def test_in_fit(name: str) -> None:
    za, zb = views(16)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6, use_bias=False)])
    model.layers[0].set_weights([np.eye(6, dtype="float32")])
    loss = build(name, reduction="sum_over_batch_size")
    model.compile(loss=loss, optimizer=keras.optimizers.SGD(1e-3))
    history = model.fit(za, zb, batch_size=16, epochs=4, shuffle=False, verbose=0).history["loss"]
    assert history[0] == pytest.approx(oracle(name, zb, za).mean(), rel=1e-4)
    assert history[-1] < history[0]


@every_loss
def test_config_round_trip(name: str) -> None:
    changed = {
        "SimCLRLoss": {"temperature": 0.1, "margin": 0.2},
        "SimSiamLoss": {"projection_type": "cosine_distance", "margin": 0.2},
        "Barlow": {"lambda_": 0.1, "margin": 0.2},
        "VicReg": {"std_const": 0.1, "lambda_": 1.0, "mu": 2.0, "nu": 3.0},
        "MultiNegativesRankLoss": {"scale": 3.0},
    }[name]
    loss = build(name, **changed, reduction="sum", name="mine", dtype="float64")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    assert changed.items() <= again.get_config().items()
    assert (again.name, again.reduction, again.dtype) == ("mine", "sum", "float64")


@pytest.mark.parametrize("build_npairs", NPAIRS.values())
def test_npairs_config_round_trip(build_npairs: Any) -> None:
    loss = build_npairs(name="mine")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss)
    assert again.name == "mine"


@every_loss
def test_views_must_match(name: str) -> None:
    loss = build(name)
    za = np.zeros((4, 3), "float32")
    with pytest.raises(ValueError, match=r"same number of rows. Received 4 and 1"):
        loss(za, za[:1])
    with pytest.raises(ValueError, match=r"same number of columns. Received 3 and 1"):
        loss(za, za[:, :1])
    with pytest.raises(ValueError, match=r"shape \[batch, dimension\]. Received shape \(4,\)"):
        loss(za, za[:, 0])


def test_clear_errors() -> None:
    s = np.zeros((3, 3), "float32")
    with pytest.raises(ValueError, match="`temperature` must be greater than 0"):
        tfsim.losses.SimCLRLoss(temperature=0.0)
    with pytest.raises(ValueError, match="`projection_type` must be one of"):
        tfsim.losses.SimSiamLoss("cosine")
    with pytest.raises(ValueError, match='distance="inner_product" alone'):
        tfsim.losses.MultiNegativesRankLoss(distance="l2")
    with pytest.raises(ValueError, match="`std_const` must be 0 or greater"):
        tfsim.losses.VicReg(std_const=-1)
    with pytest.raises(TypeError, match="`lambda_` must be a number"):
        tfsim.losses.Barlow("much")
    with pytest.raises(ValueError, match=r"one value for the whole batch.*\(3,\)"):
        tfsim.losses.Barlow()(s, s, np.ones(3))
    with pytest.raises(TypeError, match="must hold integer class ids"):
        tfa.losses.npairs_loss(np.array([0.0, 1.0, 2.0]), s)
    with pytest.raises(ValueError, match="matrix of similarities"):
        tfa.losses.NpairsLoss()(np.arange(3), s[:2])
    with pytest.raises(ValueError, match=r"same number of rows. Received 2 and 3"):
        tfa.losses.NpairsLoss()(np.arange(2), s)
    with pytest.raises(ValueError, match="for class ids use npairs_loss"):
        tfa.losses.npairs_multilabel_loss(np.arange(3), s)
    with pytest.raises(ValueError, match="one value for the whole batch"):
        tfa.losses.NpairsLoss()(np.arange(3), s, np.ones(3))


def test_npairs_keeps_large_class_ids_apart() -> None:
    rng = np.random.default_rng(0)
    s = rng.normal(size=(4, 4)).astype("float32")
    ids = np.array([0, 1, 0, 1])
    expected = value(tfa.losses.NpairsLoss(), ids, s)
    got = value(tfa.losses.NpairsLoss(), ids + 2**25, s)
    assert_close(got, expected, 0.0)


def test_npairs_multilabel_without_a_label_stays_finite() -> None:
    rng = np.random.default_rng(0)
    s = rng.normal(size=(3, 3)).astype("float32")
    y = np.array([[1, 0], [0, 0], [1, 1]])
    got, (gradient,) = value_and_gradients(lambda s: tfa.losses.npairs_multilabel_loss(y, s), s)
    first = np.logaddexp.reduce(s[0]) - (s[0, 0] + s[0, 2]) / 2
    last = np.logaddexp.reduce(s[2]) - (s[2, 0] + 2 * s[2, 2]) / 3
    assert_close(got, (first + last) / 2, 1e-5)
    assert np.all(np.isfinite(gradient))


def test_npairs_multilabel_sparse_labels() -> None:
    s = np.eye(2, dtype="float32")
    y = np.array([[1, 1], [0, 1]])
    if BACKEND == "tensorflow":
        import tensorflow as tf

        got = tfa.losses.NpairsMultilabelLoss()(tf.sparse.from_dense(y), s)
        assert_close(got, tfa.losses.npairs_multilabel_loss(y, s), 0.0)
    sparse = type("SparseTensor", (), {})()
    with pytest.raises(TypeError, match="Received sparse labels"):
        tfa.losses.npairs_multilabel_loss([sparse, sparse], s)


@pytest.mark.parametrize(
    ("name", "aliases"),
    [
        ("cosine", "cosine CosineDistance"),
        ("euclidean", "euclidean l2 L2 pythagorean EuclideanDistance"),
        ("squared_euclidean", "squared_euclidean sql2 sqeuclidean SquaredEuclideanDistance"),
        ("inner_product", "inner_product ip InnerProductSimilarity"),
        ("manhattan", "manhattan l1 taxicab ManhattanDistance"),
        ("snr", "snr signal-to-noise-ratio SNRDistance"),
    ],
)
def test_distance_aliases(name: str, aliases: str) -> None:
    for alias in aliases.split():
        assert tfsim.distances.get(alias) is ours.get(name)
        assert tfsim.distances.distance_canonicalizer(alias) is ours.get(name)
    kind = getattr(tfsim.distances, aliases.split()[-1])
    za, zb = views()
    assert_close(value(kind(), za, zb), value(ours.get(name), za, zb), 0.0)
    again = ours.get(json.loads(json.dumps(ours.serialize(kind()))))
    assert type(again) is kind
    legacy = {"class_name": kind.__name__, "config": {"name": name}}
    assert tfsim.distances.get(legacy) is ours.get(name)


def test_unknown_distance() -> None:
    with pytest.raises(ValueError, match=r"'pythagorean'.*'taxicab'.*distance='chebyshev'"):
        tfsim.distances.get("chebyshev")
    with pytest.raises(TypeError, match="must be a name"):
        tfsim.distances.get(3)


def test_metric_embedding_saves_and_loads(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    layer = tfsim.layers.MetricEmbedding(3, "relu", False, kernel_constraint="non_neg")
    model = keras.Sequential([keras.Input((4,)), layer])
    y = model.predict(x, verbose=0)
    plain = np.maximum(x @ ops.convert_to_numpy(layer.kernel), 0.0)
    norm = np.linalg.norm(plain, axis=1, keepdims=True)
    assert_close(y, plain / np.where(norm > 0, norm, 1.0), 1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(again.predict(x, verbose=0), y, 1e-6)
    assert type(again.layers[0]) is tfsim.layers.MetricEmbedding
    assert again.layers[0].get_config() == layer.get_config()


@every_loss
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_views_of_any_scale(name: str, scale: float) -> None:
    """A finite gradient wherever the value is finite, and never a number for what overflows."""
    za, zb = (z * np.float32(scale) for z in views())
    value, gradients = value_and_gradients(
        lambda a, b: ops.sum(build(name)(a, b)), za.astype("float32"), zb.astype("float32")
    )
    overflows = scale > 1 and name in ("VicReg", "MultiNegativesRankLoss")
    assert np.isfinite(value) != overflows
    if not overflows:
        assert all(np.isfinite(g).all() for g in gradients)
    if name in ("SimCLRLoss", "SimSiamLoss", "Barlow"):
        expected = ops.convert_to_numpy(build(name)(*views())).sum()
        assert_close(value, expected, 1e-4)


@every_loss
def test_constant_features_and_an_empty_batch(name: str) -> None:
    za, zb = views()
    za[:, 1] = zb[:, 1] = 0.1
    value, gradients = value_and_gradients(lambda a, b: ops.sum(build(name)(a, b)), za, zb)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)
    if name == "Barlow":  # a constant feature correlates with nothing
        left = [np.delete(z, 1, axis=1) for z in (za, zb)]
        assert_close(value, 1.0 + ops.convert_to_numpy(build(name)(*left)), 1e-5)
    empty = np.zeros((0, 4), "float32")
    assert np.isfinite(ops.convert_to_numpy(build(name)(empty, empty))).all()


@every_loss
def test_an_overflow_of_a_view_is_seen(name: str) -> None:
    for wrong in (np.inf, np.nan):
        za, zb = views()
        zb[3, 2] = wrong
        found = ops.convert_to_numpy(build(name)(za, zb))
        assert not np.isfinite(found).all()
