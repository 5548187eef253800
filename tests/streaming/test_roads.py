"""Every loss over every road that takes it; and which road is taken, and why."""

import re
from dataclasses import dataclass, replace

import keras
import numpy as np
import pytest
from keras import ops

from cases import CASES, Case, batch, expected_rows, with_forms
from kinfold import CrossBatchMemory, losses, streaming
from kinfold.compat.tensorflow_similarity import losses as tfsim
from kinfold.core import backends, pairs
from kinfold.streaming import BlockSizeRule, Family, Linear, road, roads
from kinfold.streaming.fused import kernel
from native import BACKEND, assert_close, on, value_and_gradients

NAMES = [r.name for r in roads.ROADS]


@pytest.fixture(autouse=True)
def _as_on_a_gpu():
    """What a kernel masks in the end may overflow, and does so silently on a GPU."""
    with np.errstate(all="ignore"):
        yield


SIZES = [(507, "mean"), (2, None), (1, "mean"), (7, "mean"), (252, None)]


@pytest.mark.parametrize(
    ("case", "n", "reduction"),
    with_forms([(23, "mean")], SIZES if BACKEND == "torch" else SIZES[:1]),
)
def test_every_road_gives_what_one_block_gives(case: Case, n: int, reduction: str | None) -> None:
    """On batches that no block size divides; what a road does not serve, it refuses."""
    y, x = batch(n, classes=max(n // 4, 2))
    weight = np.linspace(0.5, 2.0, n).astype("float32")
    loss = case.build(reduction=reduction, block_size=max(n // 5, 1))

    def by(name: str):
        return value_and_gradients(on(name, lambda x: loss(y, x, weight)), x)

    expected, (dx,) = by("one_block")
    # A logit of 4 gamma rounds by that many units of 2^-24, and its exponential by as much.
    near = max(2e-5, getattr(loss, "gamma", 0.0) * 2.0**-22)
    for name in NAMES:
        if name == "fused" and n > 23:  # its own tests are of such sizes
            continue
        why = cannot(name, loss, y, x)
        if why:
            with pytest.raises(RuntimeError, match=re.escape(why)):
                by(name)
            continue
        got, (found,) = by(name)
        assert_close(got, expected, 2e-6, name)
        assert_close(found, dx, near, name)


def cannot(name: str, loss, y, x) -> str | None:
    """Why a road cannot serve where it is asked for."""
    with road(name):
        return next(r for r in roads.ROADS if r.name == name).cannot(loss, loss.problem(y, x))


def test_the_losses_of_each_road() -> None:
    """A road that refuses everything would pass the test above."""
    y, x = batch(12)
    served = {name: set() for name in NAMES}
    for case in CASES:
        loss = case.build()
        for name in NAMES:
            if name != "fused" and cannot(name, loss, y, x) is None:
                served[name].add(case.name)
    every = {case.name for case in CASES}
    assert served["one_block"] == served["blocks"] == every
    assert served["symmetric"] == {
        *("circle", "circle_gamma_300", "circle_inner_product", "multi_similarity"),
        *("soft_nearest_neighbor", "tfsim_circle"),
    }
    kinds = {type(c.build()) for c in CASES if not streaming.family.refusal(c.build())}
    assert kinds == {
        *(losses.CircleLoss, losses.MultiSimilarityLoss, losses.SupConLoss, losses.NTXentLoss),
        *(losses.SoftNearestNeighborLoss, losses.GeneralizedLiftedStructureLoss),
        tfsim.CircleLoss,
    }


def test_explain() -> None:
    y, x = batch(30)
    loss = losses.CircleLoss()
    told = streaming.explain(loss, y, x)
    assert [name for name, _ in told] == NAMES
    first = next(name for name, why in told if why is None)
    assert first == ("fused" if kernel_on_gpu() else "symmetric")
    told = dict(streaming.explain(loss, y, x, ref_labels=y, ref_embeddings=x[::-1].copy()))
    assert told["one_block"] is None
    assert "with itself alone" in told["symmetric"]
    told = dict(streaming.explain(losses.MarginLoss(block_size=7), y, x))
    assert told["one_block"] == "block_size=7, and the batch has 30 anchors."
    assert told["blocks"] is None
    many = np.zeros((2**12, 2), "float32")
    told = dict(streaming.explain(losses.MarginLoss(), np.zeros(2**12, "int32"), many))
    assert told["one_block"] == "4,096 x 4,096 pairs would take too much memory at once."
    with streaming.fused_kernels(False):
        told = dict(streaming.explain(loss, y, x))
    assert told["fused"] == "`fused_kernels(False)` leaves it out."
    with road("one_block"):
        told = dict(streaming.explain(loss, y, x))
    assert told["one_block"] is None
    assert told["symmetric"] == "the road 'one_block' is forced."
    with pytest.raises(TypeError, match="a PairLoss or a CrossBatchMemory"):
        streaming.explain(losses.InfoNCELoss(), None, x)


def kernel_on_gpu() -> bool:
    from kinfold.core import backends

    return backends.module("kinfold.streaming").on_gpu(ops.ones((2, 2)))


def test_the_road_of_a_loss_with_a_memory() -> None:
    y, x = batch(6)
    memory = CrossBatchMemory(losses.CircleLoss(), 4, 8)
    told = dict(streaming.explain(memory, y, x))
    assert "without `ref_mask` or a memory" in told["fused"]
    assert "with itself alone" in told["symmetric"]
    assert told["one_block"] is None
    with road("symmetric"), pytest.raises(RuntimeError, match="cannot serve CircleLoss: the tiles"):
        memory(y, x)
    assert not int(ops.convert_to_numpy(memory.filled.value))


def test_forced_roads_that_overlap() -> None:
    """As in two threads: the first to begin is the first to end."""
    first, second = road("blocks"), road("one_block")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert streaming.forced.only() == "one_block"
    with streaming.fused_kernels(False):
        assert streaming.forced.only() == "one_block"
    second.__exit__(None, None, None)
    assert streaming.forced.only() is None


def test_extras_that_get_no_gradient() -> None:
    class Gated(losses.PairLoss):
        def problem(self, *args, **kwargs):
            problem = super().problem(*args, **kwargs)
            return problem._replace(extra=(ops.sum(problem.x, axis=1),))

        def per_anchor(self, distance, positive, negative, side):
            near = ops.sum(ops.where(positive, distance, 0.0), axis=1)
            return ops.where(side > 0, near, 2.0 * near)

    y, x = batch(14)
    loss = Gated(block_size=4)
    expected, (dx,) = value_and_gradients(on("one_block", lambda x: loss(y, x)), x)
    got, (found,) = value_and_gradients(on("blocks", lambda x: loss(y, x)), x)
    assert_close(got, expected, 1e-6)
    assert_close(found, dx, 1e-6)


def test_roads_that_a_loss_does_not_have() -> None:
    y, x = batch(6)
    proxies = losses.ArcFaceLoss(5, 8)
    proxies._warn_if_untrained = lambda: None
    for name in ("fused", "symmetric"):
        with road(name), pytest.raises(RuntimeError, match="ArcFaceLoss: it is no function of"):
            proxies(y, x)
    with road("symmetric"), pytest.raises(RuntimeError, match="InfoNCELoss: it is no function"):
        losses.InfoNCELoss()(None, x, ref_embeddings=x)
    with pytest.raises(ValueError, match="`name` must be one of"):
        road("tiles")


@pytest.mark.parametrize("build", [lambda: losses.InfoNCELoss(), lambda: losses.ArcFaceLoss(5, 8)])
def test_losses_of_other_forms_by_one_block_and_by_blocks(build) -> None:
    y, x = batch(40)
    r = batch(40, seed=1)[1]
    loss = build()
    loss._warn_if_untrained = lambda: None
    paired = isinstance(loss, losses.InfoNCELoss)

    def value(x):
        return loss(None, x, ref_embeddings=r) if paired else loss(y, x)

    expected, (dx,) = value_and_gradients(on("one_block", value), x)
    loss.block_size = 7
    got, (found,) = value_and_gradients(on("blocks", value), x)
    assert_close(got, expected, 2e-6)
    assert_close(found, dx, 2e-5)


@dataclass(frozen=True)
class Louder:
    """Twice another logit."""

    of: Linear
    numbers = None

    def value(self, distance):
        return 2.0 * self.of.value(distance)

    def slope(self, distance):
        return 2.0 * self.of.slope(distance)


class Circle(losses.CircleLoss):
    """A subclass that changes nothing."""


class OtherPositive(losses.CircleLoss):
    def positive_logit(self, distance):
        return 2.0 * super().positive_logit(distance)


class OtherNegative(losses.CircleLoss):
    def negative_logit(self, distance):
        return 2.0 * super().negative_logit(distance)


class OtherCombination(losses.CircleLoss):
    def combine(self, positive, negative):
        return positive + negative


class OtherRow(losses.CircleLoss):
    def per_anchor(self, distance, positive, negative):
        return 2.0 * super().per_anchor(distance, positive, negative)


class OtherWholeRow(losses.CircleLoss):
    def row(self, distance, positive, negative, *extra):
        loss, valid = super().row(distance, positive, negative, *extra)
        return 2.0 * loss, valid


class OtherAnchors(losses.CircleLoss):
    def valid_anchors(self, positive, negative):
        return ops.logical_and(pairs.valid_anchors(positive, negative), positive[:, 0])


class OtherProblem(losses.CircleLoss):
    def problem(self, *args, **kwargs):
        problem = super().problem(*args, **kwargs)
        return problem._replace(mask=ops.arange(problem.x.shape[0]) < 5)


class OtherFamily(losses.CircleLoss):
    """Says itself what it changes, and so takes every road."""

    def family(self):
        family = super().family()
        return replace(family, of=OtherFamily, negative=Louder(family.negative))

    def negative_logit(self, distance):
        return self.family().negative.value(distance)


CHANGED = [
    *(Circle, OtherPositive, OtherNegative, OtherCombination, OtherRow, OtherWholeRow),
    *(OtherAnchors, OtherProblem, OtherFamily),
]


@pytest.mark.parametrize("kind", CHANGED)
def test_a_subclass_is_served_right_or_takes_the_general_road(kind: type) -> None:
    """Each part of the equation changed in turn, left to choose its road."""
    y, x = batch(20)
    loss = kind(gamma=4.0, block_size=20)
    expected, (dx,) = value_and_gradients(on("one_block", lambda x: loss(y, x)), x)
    original = float(losses.CircleLoss(gamma=4.0)(y, x))
    assert (abs(float(expected) - original) < 1e-6 * abs(original)) == (kind is Circle)
    got, (found,) = value_and_gradients(lambda x: loss(y, x), x)
    assert_close(got, expected, 2e-6)
    assert_close(found, dx, 2e-5)
    told = dict(streaming.explain(loss, y, x))
    assert (told["symmetric"] is None) == (kind is OtherFamily)
    if kind is Circle:
        assert told["symmetric"] == (
            "Circle is a subclass of CircleLoss and may change its equation; let its `family` "
            "return one of its own, with `of=Circle`."
        )


def test_a_family_of_ones_own() -> None:
    """With logits that are straight lines a new loss takes the kernels too."""

    class Mine(losses.LogSumExpLoss):
        def family(self):
            return Family(Mine, self.distance, *self._logits(), self.combine)

        def _logits(self):
            return Linear(3.0, 0.2), Linear(-5.0, 0.7)

        def positive_logit(self, distance):
            return self._logits()[0].value(distance)

        def negative_logit(self, distance):
            return self._logits()[1].value(distance)

        def combine(self, positive, negative):
            return ops.relu(positive) + ops.relu(negative)

    def row(p, n):
        sums = (np.logaddexp.reduce(z) for z in (3.0 * (p - 0.2), -5.0 * (n - 0.7)))
        return sum(max(s, 0.0) for s in sums)

    y, x = batch(14)
    loss, case = Mine(block_size=4), Case("mine", Mine, row)
    for name in NAMES:
        if name == "fused" and cannot(name, loss, y, x):
            assert keras.backend.backend() == "tensorflow" or not kernel.installed("triton")
            continue
        rows = ops.convert_to_numpy(on(name, loss.call)(y, x))
        assert_close(rows, expected_rows(case, y, x)[0], 1e-5, name)


def test_blocks_on_a_gpu_are_large(monkeypatch) -> None:
    """There each block is a few dozen launches, and the symmetric tiles are far too many."""
    backend = backends.module("kinfold.streaming")
    monkeypatch.setattr(backend, "on_gpu", lambda x: True)
    y, x = batch(8)
    assert BlockSizeRule().anchors(16384) == backend.PAIRS // 16385 + 1
    assert backend.PAIRS < 2**22
    assert BlockSizeRule().on(ops.convert_to_tensor(x)).anchors(16384) == 1024
    for loss in (losses.CircleLoss(), losses.TripletLoss()):
        with streaming.fused_kernels(False):
            whys = dict(streaming.explain(loss, y, x))
        assert whys["one_block"] is None
        assert whys["symmetric"]
