"""Streaming is exact: no block size, no road through the engine changes a result."""

from dataclasses import dataclass

import numpy as np
import pytest
from keras import ops

from cases import CASES, Case, batch, distances, every_form, expected_rows, with_forms
from kinfold import losses, streaming
from kinfold.losses import LogSumExpLoss
from kinfold.streaming import BlockSizeRule, Family
from native import BACKEND, assert_close, float64, on, value_and_gradients, with_gradients


@pytest.mark.parametrize(
    ("case", "reduction", "size"), with_forms([("mean", 5)], [("none", 1)] * (BACKEND == "torch"))
)
def test_streamed_references(case: Case, reduction: str, size: int) -> None:
    y, x = batch(23)
    ref_y, ref_x = batch(58, seed=1)
    weight = np.linspace(0.5, 2.0, 23).astype("float32")

    def result(name, loss):
        return value_and_gradients(
            on(name, lambda x, r: loss(y, x, weight, ref_labels=ref_y, ref_embeddings=r)), x, ref_x
        )

    expected, gradients = result("one_block", case.build(reduction=reduction))
    got, streamed = result("blocks", case.build(reduction=reduction, block_size=size))
    assert_close(got, expected, 2e-6)
    for g, e in zip(streamed, gradients, strict=True):
        assert_close(g, e, 2e-5)


@every_form
def test_labels_of_references_that_are_the_batch(case: Case) -> None:
    """The batch's own embeddings under other labels, whether they are one object or a copy."""
    y, x = batch(17)
    loss, other = case.build(), batch(17, seed=1)[0]
    rows = ops.convert_to_numpy(loss.call(y, x, ref_labels=other))
    expected = expected_rows(case, y, x, other, x)[0]
    assert_close(rows, expected, 2e-5)


@every_form
def test_streamed_against_float64(case: Case) -> None:
    y, x = batch(41, dtype="float64")
    with float64():
        loss = case.build(dtype="float64", block_size=6)
        rows, _ = value_and_gradients(lambda x: loss.call(y, x), x)
    assert_close(rows, expected_rows(case, y, x)[0], 1e-9)


@pytest.mark.parametrize(
    ("case", "dtype", "computed"),
    with_forms(
        [("bfloat16", None)],
        [("float16", None), ("float16", "float16"), ("bfloat16", "bfloat16")],
    ),
)
def test_half_precision_streamed_is_no_worse_than_dense(
    case: Case, dtype: str, computed: str | None
) -> None:
    y, x = batch(64, classes=9)
    half = ops.cast(x, dtype)
    truth = expected_rows(case, y, ops.convert_to_numpy(ops.cast(half, "float32")))[0]
    error = []
    loss = case.build(block_size=7, dtype=computed)
    for call in (loss.call, on("one_block", loss.call)):
        rows = ops.convert_to_numpy(ops.cast(call(y, half), "float32"))
        error.append(np.abs(rows - truth).max())
    assert error[0] <= 1.05 * error[1] + 2e-6 * np.abs(truth).max()


@every_form
def test_invalid_anchors_when_streamed(case: Case) -> None:
    y = np.array([0, 1, 2, 3, 4, 4, 4, 5, 5, 6, 7])
    x = batch(len(y))[1]
    loss = case.build(block_size=2, reduction="sum")
    total_at = with_gradients(lambda x, y: loss(y, x))
    value, (dx,) = total_at(x, y=y)
    rows, counted = expected_rows(case, y, x)
    assert_close(value, rows.sum(), 1e-5)
    assert np.all(np.isfinite(dx))
    assert not counted.all()
    value, (dx,) = total_at(x, y=np.arange(len(y)))
    assert value == 0
    assert np.all(dx == 0)


@every_form
def test_gradient_of_references_alone(case: Case) -> None:
    """A memory bank asks for none of its own; an encoder of references for theirs alone."""
    y, x = batch(12)
    ref_y, ref_x = batch(30, seed=1)
    loss = case.build(block_size=5)
    _, (dx, dr) = value_and_gradients(
        on("one_block", lambda x, r: loss(y, x, ref_labels=ref_y, ref_embeddings=r)), x, ref_x
    )
    _, (only_x,) = value_and_gradients(
        lambda x: loss(y, x, ref_labels=ref_y, ref_embeddings=ref_x), x
    )
    _, (only_r,) = value_and_gradients(
        lambda r: loss(y, x, ref_labels=ref_y, ref_embeddings=r), ref_x
    )
    assert_close(only_x, dx, 2e-5)
    assert_close(only_r, dr, 2e-5)


FAMILY = [c for c in CASES if c.build().family() is not None]


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("case", FAMILY, ids=str)
def test_slopes_are_the_derivatives_of_the_logits(case: Case, detach: bool) -> None:
    loss = case.build()
    loss.detach_weights = detach
    d = np.linspace(-1.5, 2.5, 41)  # passes no corner of a relu
    with float64():
        for logit in (loss.family().positive, loss.family().negative):
            _, (expected,) = value_and_gradients(logit.value, d)
            got = ops.convert_to_numpy(logit.slope(ops.convert_to_tensor(d)))
            assert_close(got, expected, 1e-12)


@pytest.mark.parametrize("classes", [1, 2, 40])
def test_tiles_with_few_and_with_many_positives(classes: int) -> None:
    y, x = batch(40, classes=classes)
    case = CASES[0]
    loss = case.build(block_size=7, remove_diagonal=False)
    expected, (dx,) = value_and_gradients(on("one_block", lambda x: loss(y, x)), x)
    got, (dx_tiles,) = value_and_gradients(on("symmetric", lambda x: loss(y, x)), x)
    assert_close(got, expected, 2e-6)
    assert_close(dx_tiles, dx, 2e-5)


def test_far_apart_sums_survive_the_tiles() -> None:
    """Rows whose logits differ by hundreds: a maximum shared by a tile would underflow."""
    case = CASES[1]  # gamma 300
    x = np.zeros((9, 4), "float32")
    x[:3, 0] = x[3:6, 1] = 1.0
    x[6:] = [0.8, 0.6, 0.0, 0.0]
    y = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3])
    rows, (dx,) = value_and_gradients(lambda x: case.build(block_size=3).call(y, x), x)
    assert_close(rows, expected_rows(case, y, x)[0], 1e-5)
    assert np.all(np.isfinite(dx))
    assert distances(x, x, "cosine").max() == 1.0


@pytest.mark.parametrize("block_size", [None, 5])
def test_a_logit_may_be_the_distance_itself(block_size: int | None) -> None:
    """The tiles of PyTorch work in place, but never on what a loss handed back."""

    @dataclass(frozen=True)
    class Itself:
        numbers = None

        def value(self, distance):
            return distance

        def slope(self, distance):
            return ops.ones_like(distance)

    class Plain(LogSumExpLoss):
        def family(self):
            return Family(Plain, self.distance, Itself(), Itself(), self.combine)

        def positive_logit(self, distance):
            return distance

        negative_logit = positive_logit

        def combine(self, positive, negative):
            return positive - negative

    y, x = batch(17)
    for distance in ("inner_product", "cosine"):
        loss = Plain(distance=distance, block_size=block_size)
        expected, (dx,) = value_and_gradients(on("one_block", lambda x, loss=loss: loss(y, x)), x)
        value, (gradient,) = value_and_gradients(
            on("symmetric", lambda x, loss=loss: loss(y, x)), x
        )
        assert_close(value, expected, 1e-5)
        assert_close(gradient, dx, 2e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", [losses.PairContrastiveLoss, losses.TripletLoss])
def test_gradients_of_half_precision_do_not_depend_on_the_blocks(kind: type, dtype: str) -> None:
    """Sums over blocks are in float32, where half precision would count to 256 or 2048."""
    y, x = batch(600, classes=2)
    ref_y, r = batch(16, classes=2, seed=1)
    found = {}
    for given, size in (("float32", 600), (dtype, 600), (dtype, 7)):
        loss = kind(distance="cosine", reduction="sum", dtype=given, block_size=size)
        loss._norms_checked = True

        def value(x, r, loss=loss, given=given):
            x, r = ops.cast(x, given), ops.cast(r, given)
            return ops.cast(loss(y, x, ref_labels=ref_y, ref_embeddings=r), "float32")

        found[given, size] = value_and_gradients(
            value, *(ops.convert_to_numpy(ops.cast(ops.cast(a, dtype), "float32")) for a in (x, r))
        )[1]
    for size in (600, 7):
        for got, exact in zip(found[dtype, size], found["float32", 600], strict=True):
            assert_close(got, exact, 0.01)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sums_of_half_precision(dtype: str) -> None:
    """The other two entries of the engine, against float32 on one block."""
    x = ops.cast(batch(9, d=4)[1], dtype)
    r = ops.cast(batch(700, d=4, seed=1)[1], dtype)

    def block(x, r):
        s = x @ ops.transpose(r)
        return s + 1.0, s

    def fn(k, x, r):
        return ops.sum(x * ops.take(r, k, axis=0), axis=1) + 1.0

    def value(x, r):
        total, log_sum = streaming.sum_and_log_sum(block, x, r, rule=BlockSizeRule(3))
        many = streaming.repeated(fn, ops.convert_to_tensor(700), (x, r), ())
        return ops.cast(total, "float32") + log_sum + ops.cast(many, "float32")

    def at(side):
        return ops.convert_to_numpy(ops.cast(side, "float32"))

    s = at(x) @ at(r).T
    expected = (s + 1).sum(1) * 2 + np.logaddexp.reduce(s, axis=1)
    sides = at(x), at(r)
    got, (dx, _) = value_and_gradients(
        lambda x, r: value(ops.cast(x, dtype), ops.cast(r, dtype)), *sides
    )
    assert_close(got, expected, 0.01)
    shares = np.exp(s - np.logaddexp.reduce(s, axis=1)[:, None])
    # Three gradients are rounded to bfloat16 and added up in it, by the casts of this test.
    assert_close(dx, 2 * at(r).sum(0) + shares @ at(r), 0.02)
