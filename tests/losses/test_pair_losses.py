"""Promises of every pair loss: each test runs for each row of the case table."""

import json

import keras
import numpy as np
import pytest
from keras import ops

import cases
from cases import CASES, FORMS, Case, batch, every_form, expected_rows, with_forms
from kinfold.losses import CircleLoss
from native import BACKEND, assert_close, float64, value_and_gradients, with_gradients

every_loss = pytest.mark.parametrize("case", CASES, ids=str)


def rows_of(loss, y, x, *refs):
    return value_and_gradients(lambda x: loss.call(y, x, *refs), x)


@every_loss
def test_rows_follow_the_equation(case: Case) -> None:
    y, x = batch(23, dtype="float64")
    with float64():
        rows, _ = rows_of(case.build(dtype="float64"), y, x)
    assert_close(rows, expected_rows(case, y, x)[0], 1e-9)


@every_loss
@pytest.mark.parametrize("m", [5, 40], ids=["fewer", "more"])
def test_references(case: Case, m: int) -> None:
    y, x = batch(16, dtype="float64")
    ref_y, ref_x = batch(m, seed=1, dtype="float64")
    with float64():
        loss = case.build(dtype="float64")
        rows, (dx, dr) = value_and_gradients(lambda x, r: loss.call(y, x, ref_y, r), x, ref_x)
    assert_close(rows, expected_rows(case, y, x, ref_y, ref_x)[0], 1e-9)
    assert np.abs(dx).max() > 0
    assert np.abs(dr).max() > 0


@every_loss
def test_gradient_against_finite_differences(case: Case) -> None:
    y, x = batch(11, d=4, classes=3, dtype="float64")
    direction = np.random.default_rng(3).normal(size=x.shape)
    step = 1e-6
    with float64():
        _, (gradient,) = rows_of(case.build(dtype="float64"), y, x)
    up, down = (expected_rows(case, y, x + s * step * direction)[0].sum() for s in (1, -1))
    detached = getattr(case.build(), "detach_weights", False)
    assert not detached, "finite differences do not see detached weights"
    assert_close((gradient * direction).sum(), (up - down) / (2 * step), 1e-4)


@every_loss
def test_float32_and_half_inputs_against_float64(case: Case) -> None:
    y, x = batch(37)
    loss = case.build()
    for dtype, rtol in (("float32", 1e-5), ("float16", 2e-5), ("bfloat16", 2e-5)):
        half = ops.cast(x, dtype)
        given = ops.convert_to_numpy(ops.cast(half, "float32"))
        expected = expected_rows(case, y, given)[0]
        rows = ops.convert_to_numpy(loss.call(y, half))
        assert rows.dtype == np.float32  # computed in float32, whatever came in
        assert_close(rows, expected, rtol, dtype)


@every_loss
def test_invalid_anchors_have_no_loss_and_no_gradient(case: Case) -> None:
    loss = case.build()
    rows_at = with_gradients(lambda x, y: loss.call(y, x))
    for labels in ([0], [0, 0, 0], [0, 1, 2], [0, 0, 1], []):
        y = np.array(labels, "int32")
        x = batch(len(y), d=4)[1]
        rows, (dx,) = rows_at(x, y=y)
        expected, counted = expected_rows(case, y, x)
        assert_close(rows, expected, 1e-5, str(labels))
        assert np.all(rows[counted == 0] == 0)
        assert np.all(np.isfinite(dx))
        if not counted.any():
            assert np.all(dx == 0)
            assert float(loss(y, x)) == 0.0


@every_loss
def test_duplicates_and_zero_vectors_stay_finite(case: Case) -> None:
    y = np.array([0, 0, 1, 1, 0, 2])
    x = batch(6, d=4)[1]
    x[1], x[3] = x[0], x[2]  # duplicates within a class
    x[4] = x[2]  # and across classes
    x[5] = 0.0
    for normalize in (False, True):
        loss = case.build(normalize=normalize)
        loss._norms_checked = True  # the zero row is meant
        value, (dx,) = value_and_gradients(lambda x, loss=loss: loss(y, x), x)
        assert np.isfinite(value)
        assert np.all(np.isfinite(dx))


@every_loss
def test_nan_is_seen(case: Case) -> None:
    """No comparison and no maximum makes a number of a model that has gone wrong."""
    y, x = batch(24)
    loss, wrong = case.build(), x.copy()
    wrong[5] = np.nan
    assert np.isnan(float(loss(y, wrong)))
    assert np.isnan(float(loss(y, x, ref_labels=y, ref_embeddings=wrong)))
    assert np.isnan(float(loss(y, np.full_like(x, np.nan))))


def test_nan_is_seen_in_every_row_of_symmetric_tiles() -> None:
    y, x = batch(600)
    x[5] = np.nan
    rows = ops.convert_to_numpy(CircleLoss().call(y, x))
    assert np.isnan(rows[np.arange(600) != 5]).all()


@every_loss
def test_batch_order_and_label_names_do_not_matter(case: Case) -> None:
    y, x = batch(19)
    loss = case.build()
    rows_at = with_gradients(lambda x, y: loss.call(y, x))
    rows, (dx,) = rows_at(x, y=y.astype("int32"))
    order = np.random.default_rng(5).permutation(19)
    renamed = np.array([2**31 - 1, -(2**31), 2**24, 2**24 + 1, 0], "int32")[y]
    moved, (dmoved,) = rows_at(x[order], y=renamed[order])
    assert_close(moved, rows[order], 1e-5)
    assert_close(dmoved, dx[order], 1e-4)


# The reductions are the base's; what a loss brings to them is what a mean counts.
OF_EVERY = [(c, r) for c in CASES for r in ("sum_over_batch_size", "mean_with_sample_weight")]
OF_ONE = [(CASES[0], r) for r in ("sum", "mean", "none", None)]


@pytest.mark.parametrize(
    ("case", "reduction"), [*OF_EVERY, *OF_ONE, (CASES[-1], None)], ids=lambda v: str(v)
)
def test_weights_and_reductions(case: Case, reduction: str | None) -> None:
    y, x = batch(13, classes=7)  # some classes with one example: invalid anchors
    loss = case.build(reduction=reduction)
    rows, counted = expected_rows(case, y, x)
    assert not counted.all()
    if case.mean_counts_invalid:
        counted = np.ones(13)
    weight = np.linspace(0.5, 2.0, 13).astype("float32")
    for given, w in ((None, 1.0), (0.5, 0.5), (weight, weight), (weight[:, None], weight)):
        weighted = rows * w
        expected = {
            "sum": weighted.sum(),
            "sum_over_batch_size": weighted.sum() / counted.sum(),
            "mean": weighted.sum() / counted.sum(),
            "mean_with_sample_weight": weighted.sum() / (counted * w).sum(),
        }.get(reduction or "none", weighted)
        if reduction in (None, "none") and case.mean_counts_invalid:
            expected = expected[:, None]  # as TensorFlow Similarity returns it
        assert_close(ops.convert_to_numpy(loss(y, x, given)), expected, 1e-5, str(given))


@every_loss
def test_labels_of_every_shape_and_integer_dtype(case: Case) -> None:
    y, x = batch(12)
    loss = case.build()
    expected = float(loss(y, x))
    for labels in (y[:, None], y.tolist(), *(y.astype(t) for t in ("int8", "uint8", "uint32"))):
        assert float(loss(labels, x)) == expected
    assert float(loss(ops.convert_to_tensor(y.astype("int32")), x)) == expected


@every_loss
def test_config_is_complete_and_json_able(case: Case) -> None:
    loss = case.build(reduction="sum", name="mine", dtype="bfloat16")
    config = json.loads(json.dumps(loss.get_config()))
    again = type(loss).from_config(config)
    assert again.get_config() == loss.get_config()
    assert (again.reduction, again.name, again.dtype) == ("sum", "mine", "bfloat16")
    assert again.distance.name == case.distance
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    assert keras.saving.deserialize_keras_object(saved).get_config() == loss.get_config()


@every_form
def test_compiled_equals_eager(case: Case) -> None:
    y, x = batch(10)
    loss = case.build()
    eager = float(loss(y, x))
    if BACKEND == "jax":
        import jax

        compiled = jax.jit(lambda y, x: loss(y, x))(y, x)
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        step = tf.function(lambda y, x: loss(y, x), autograph=False)
        compiled = step(tf.constant(y), tf.constant(x))
    else:
        compiled = loss(ops.convert_to_tensor(y), ops.convert_to_tensor(x))  # eager is all there is
    assert_close(ops.convert_to_numpy(compiled), eager, 1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_computation_is_no_worse_than_keras(dtype: str) -> None:
    """Asked to compute in half precision, Circle errs no more than Keras's own does."""
    y, x = batch(64, d=16, classes=8)
    half = ops.convert_to_numpy(ops.cast(ops.cast(x, dtype), "float32"))
    truth = expected_rows(CASES[0], y, half)[0]
    loss = CASES[0].build(dtype=dtype)
    ours = ops.convert_to_numpy(ops.cast(loss.call(y, x), "float32"))
    theirs = ops.convert_to_numpy(ops.cast(keras.losses.circle(y, ops.cast(x, dtype)), "float32"))
    assert np.abs(ours - truth).max() <= 1.05 * np.abs(theirs - truth).max()


def test_detached_weights_change_the_gradient_only() -> None:
    y, x = batch(24)
    plain, detached = (CASES[0].build(detach_weights=flag) for flag in (False, True))
    value, (dx,) = value_and_gradients(lambda x: plain(y, x), x)
    same, (dx_detached,) = value_and_gradients(lambda x: detached(y, x), x)
    assert value == same
    assert np.abs(dx - dx_detached).max() > 0.01 * np.abs(dx).max()


def test_normalize_equals_normalising_first() -> None:
    y, x = batch(14)
    scaled = x * np.linspace(0.1, 9.0, 14, dtype="float32")[:, None]
    assert_close(
        float(CASES[0].build(normalize=True)(y, scaled)), float(CASES[0].build()(y, x)), 1e-5
    )


def test_unnormalised_input_gets_one_warning() -> None:
    y, x = batch(14)
    loss = CASES[0].build()
    with pytest.warns(UserWarning, match="unit norm.*L2Embedding"):
        loss(y, 3 * x)
    loss(y, 3 * x)  # silent: warnings are errors here


def test_the_oracle_rejects_a_wrong_loss() -> None:
    y, x = batch(23)
    rows = ops.convert_to_numpy(CASES[0].build(margin=0.41).call(y, x))
    with pytest.raises(AssertionError, match="error"):
        assert_close(rows, expected_rows(CASES[0], y, x)[0], 1e-5)


def test_large_class_ids_are_kept_apart() -> None:
    """Keras merges 2^24 and 2^24 + 1 (99.82 instead of 34.72 there); we must not."""
    x = batch(6)[1]
    for base in (2**8, 2**24, 2**31 - 2, -(2**31), 2**32 - 2):
        ids = np.array([base, base, base + 1, base + 1, 5, 5], "int64")
        renamed = np.array([0, 0, 1, 1, 2, 2])
        for dtype in ("float32", "float16", "bfloat16"):
            loss = CASES[0].build(dtype=dtype)
            assert float(loss(ids, x)) == float(loss(renamed, x)), (base, dtype)


def test_labels_beyond_32_bits() -> None:
    x = batch(4)[1]
    ids = np.array([2**40, 2**40, 2**40 + 2**32, 2**40 + 2**32])
    if BACKEND == "jax":
        with pytest.raises(ValueError, match="more than 32 bits"):
            CASES[0].build()(ids, x)
        with float64():
            assert float(CASES[0].build()(ids, x)) > 0
    else:
        assert float(CASES[0].build()(ids, x)) == float(CASES[0].build()(np.array([0, 0, 1, 1]), x))


def test_functions_equal_their_classes() -> None:
    from kinfold import losses

    y, x = batch(12)
    ref_y, ref_x = batch(9, seed=2)
    loss = losses.CircleLoss(gamma=20.0, margin=0.3, detach_weights=True, reduction=None)
    rows = losses.circle_loss(y, x, ref_y, ref_x, True, 20.0, 0.3, detach_weights=True)
    expected = loss(y, x, ref_labels=ref_y, ref_embeddings=ref_x)
    assert_close(ops.convert_to_numpy(rows), ops.convert_to_numpy(expected), 0.0)
    assert cases.distances(x, x, "cosine").shape == (12, 12)


@every_form
def test_a_mask_of_the_batch_itself(case: Case) -> None:
    """As the references that are kept: by the equation, and given by themselves."""
    y, x = batch(14, classes=4)
    keep = np.arange(14) % 4 != 1
    at, rows = np.arange(14), []
    for i in at:
        others = keep & (at != i)
        one, i = slice(i, i + 1), i
        rows += [expected_rows(case, y[one], x[one], y[others], x[others], False)[0][0]]
    loss = case.build(block_size=5)
    got, (dx,) = value_and_gradients(lambda x: loss.call(y, x, ref_mask=keep), x)
    assert_close(got.reshape(-1), rows, 1e-5)
    if case in FORMS:
        whole = ops.convert_to_numpy(case.build().call(y, x, ref_mask=keep))
        assert_close(whole.reshape(-1), rows, 1e-5)
    kept = case.build(remove_diagonal=False) if "remove_diagonal" in loss.get_config() else None
    masked = case.build(remove_diagonal=False) if kept else None
    if kept:
        expected = kept(y, x, ref_labels=y[keep], ref_embeddings=x[keep])
        assert_close(float(masked(y, x, ref_mask=keep)), float(expected), 1e-5)
    assert np.all(np.isfinite(dx))


@pytest.mark.parametrize(("case", "reduction"), with_forms([("mean",)], [("none",)]))
def test_an_infinite_embedding_is_seen(case: Case, reduction: str) -> None:
    """An overflow of half precision: no hinge and no minimum makes a number of it."""
    y, x = batch(12, classes=4)
    for wrong in (np.inf, -np.inf):
        given = x.copy()
        given[5, 2] = wrong
        loss = case.build(reduction=reduction)
        loss._norms_checked = True
        rows = ops.convert_to_numpy(loss(y, given))
        assert not np.isfinite(rows).any()
        if reduction == "mean":
            assert not np.isfinite(float(loss(y, x, ref_labels=y, ref_embeddings=given)))


@every_loss
def test_an_empty_batch(case: Case) -> None:
    y, x = np.zeros(0, "int32"), np.zeros((0, 4), "float32")
    for normalize in (False, True):
        assert float(case.build(normalize=normalize)(y, x)) == 0.0


def test_ids_of_64_bits_without_a_sign() -> None:
    """Hashes: PyTorch has uint64 in name only, and those of 2^63 or more must stay apart."""
    x = batch(6)[1]
    y = np.array([0, 0, 1, 1, 2, 2])
    loss = CASES[0].build()
    expected = float(loss(y, x))
    for dtype in ("uint8", "uint16", "uint32", "uint64"):
        ids = y.astype(dtype)
        assert float(loss(ids, x)) == expected
        assert float(loss(ids, x, ref_labels=ids[::-1].copy()[::-1], ref_embeddings=x)) == expected
        if BACKEND == "torch":
            import torch

            assert float(loss(torch.tensor(ids), ops.convert_to_tensor(x))) == expected
    wide = np.array([2**64 - 1, 2**64 - 1, 2**63, 2**63, 2**63 - 1, 2**63 - 1], "uint64")
    if BACKEND == "jax":
        with pytest.raises(ValueError, match="more than 32 bits"):
            loss(wide, x)
        with float64():
            assert float(CASES[0].build()(wide, x)) == pytest.approx(expected)
    else:
        assert float(loss(wide, x)) == expected
    several = np.eye(3, dtype="uint64")[y]
    assert float(loss(several, x)) == pytest.approx(expected, rel=1e-6)
