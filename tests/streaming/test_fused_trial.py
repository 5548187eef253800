"""Where the fused kernels are chosen unasked: here as on a GPU, in the interpreters."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from cases import batch
from kinfold import losses, streaming
from kinfold.core import backends
from kinfold.streaming import fused_kernels
from kinfold.streaming.fused import choice, kernel, trial
from native import assert_close, value_and_gradients

BACKEND = keras.backend.backend()

pytestmark = [
    pytest.mark.skipif(
        BACKEND == "tensorflow" or (BACKEND == "torch" and not kernel.installed("triton")),
        reason="the kernels serve PyTorch, where Triton is, and JAX",
    ),
    # What is masked in the end may overflow, silently on a GPU; in NumPy, in the trial's thread.
    pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning"),
]

WHOLE = {"ANCHORS": trial.ANCHORS, "REFERENCES": trial.REFERENCES}

BUILDS = {
    "circle": lambda: losses.CircleLoss(gamma=20.0),
    "bfloat16": lambda: losses.CircleLoss(dtype="bfloat16", normalize=True),
    "euclidean": lambda: losses.SoftNearestNeighborLoss(distance="euclidean"),
    "info_nce": lambda: losses.InfoNCELoss(0.2),
}


@pytest.fixture
def backend(monkeypatch):
    """The module of the backend, with its kernels as the first choice and their calls counted."""
    module = choice._backend()
    module.calls = []
    monkeypatch.setattr(backends.module("kinfold.streaming"), "on_gpu", lambda x: True)
    monkeypatch.setattr(module, "unmeasured", lambda x: None)
    for side in WHOLE:
        monkeypatch.setattr(trial, side, 60)
    for name in ("rows", "pairs"):
        kernel = getattr(module, name)

        def counted(*args, kernel=kernel):
            module.calls.append(None)
            return kernel(*args)

        monkeypatch.setattr(module, name, counted)
    yield module
    del module.calls


def called(loss):
    y, x = batch(24, seed=3)
    if isinstance(loss, losses.InfoNCELoss):
        r = batch(24, seed=4)[1]
        return lambda x: loss(None, x, ref_embeddings=r), x
    return lambda x: loss(y, x), x


@pytest.mark.parametrize("name", BUILDS if BACKEND == "torch" else ["bfloat16", "info_nce"])
def test_chosen_after_one_trial(name: str, backend) -> None:
    fn, x = called(loss := BUILDS[name]())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        value, (dx,) = value_and_gradients(fn, x)
        assert len(backend.calls) == 3  # two of the trial
        value_and_gradients(fn, x)
        assert len(backend.calls) == 4
    with fused_kernels(False):
        expected, (dense,) = value_and_gradients(fn, x)
    assert len(backend.calls) == 4
    tolerance = 2**-6 if loss.dtype == "bfloat16" else 2e-5
    assert_close(value.astype("float32"), expected.astype("float32"), tolerance)
    assert_close(dx, dense, tolerance)


@pytest.mark.parametrize("name", ["circle", "info_nce"] if BACKEND == "torch" else ["circle"])
def test_a_whole_trial(name: str, backend, monkeypatch) -> None:
    """Of the size that a GPU gets."""
    for side, count in WHOLE.items():
        monkeypatch.setattr(trial, side, count)
    fn, x = called(BUILDS[name]())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fn(ops.convert_to_tensor(x))
    assert len(backend.calls) == 3


@pytest.mark.parametrize("name", ["circle", "info_nce"])
def test_asked_for_where_they_were_never_timed(name: str, backend, monkeypatch) -> None:
    monkeypatch.setattr(backend, "unmeasured", lambda x: "they were not timed here.")
    fn, x = called(loss := BUILDS[name]())
    fn(ops.convert_to_tensor(x))
    assert not backend.calls
    if name == "circle":
        y, x = batch(24, seed=3)
        assert dict(streaming.explain(loss, y, x))["fused"] == "they were not timed here."
    with fused_kernels():
        fn(ops.convert_to_tensor(x))
    assert len(backend.calls) == 1


def test_another_width_is_tried_anew(backend, monkeypatch) -> None:
    tried = []
    monkeypatch.setattr(trial, "_fault", lambda d, *_: tried.append(d))
    loss = losses.CircleLoss(gamma=10.0)
    for d in (8, 16, 8):
        y, x = batch(12, d=d)
        loss(y, x)
    assert tried == [8, 16]
    assert len(backend.calls) == 3


@pytest.mark.parametrize("name", ["circle", "info_nce"])
@pytest.mark.parametrize("fault", ["scaled", "nan", "raises"])
def test_a_fault_is_told_once_and_the_loss_is_streamed(
    name: str, fault: str, backend, monkeypatch
) -> None:
    kernel = "pairs" if name == "info_nce" else "rows"
    right = getattr(backend, kernel)

    def faulty(*args):
        first, *others = right(*args)
        if fault == "raises":
            raise RuntimeError("out of resource: shared memory")
        return (first * 1.06 if fault == "scaled" else first * np.nan, *others)

    fn, x = called(BUILDS[name]())
    with fused_kernels(False):
        expected, (dense,) = value_and_gradients(fn, x)
    monkeypatch.setattr(backend, kernel, faulty)
    message = "RuntimeError: out of resource" if fault == "raises" else "the loss is"
    with pytest.warns(UserWarning, match=f"failed their trial for .*Loss in float32.*{message}"):
        value, (dx,) = value_and_gradients(fn, x)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(dx, dense)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fn(ops.convert_to_tensor(x))


def test_a_wrong_gradient_is_a_fault(backend, monkeypatch) -> None:
    right = backend.rows

    def faulty(*args):
        rows, valid = right(*args)
        return ops.stop_gradient(2.0 * rows) - rows, valid

    monkeypatch.setattr(backend, "rows", faulty)
    fn, x = called(losses.CircleLoss())
    with pytest.warns(UserWarning, match="the gradient is"):
        fn(ops.convert_to_tensor(x))


def test_what_they_cannot_serve_is_left_to_the_other_roads(backend) -> None:
    y, x = batch(12)
    for loss in (losses.TripletLoss(), losses.CircleLoss(distance="manhattan")):
        assert np.isfinite(float(loss(y, x)))
    same = y[:, None] == y[None, :]
    assert np.isfinite(float(losses.CircleLoss()(same, x)))
    assert not float(losses.CircleLoss()(y[:0], x[:0]))
    assert not backend.calls


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch.compile's
def test_tried_in_the_midst_of_anything(backend) -> None:
    """While JAX traces; where PyTorch takes no gradients, narrows, or compiles."""
    y, x = batch(12)
    expected = float(losses.CircleLoss(gamma=10.0)(y, x))

    def fresh():
        loss = losses.CircleLoss(gamma=10.0)
        return lambda x: loss(y, x)

    if BACKEND == "jax":
        import jax

        step = jax.jit(jax.value_and_grad(fresh()))
        assert_close(np.asarray(step(x)[0]), expected, 1e-5)
        assert len(backend.calls) == 6
        return
    import torch

    tensor = torch.tensor(x)
    for mode in (torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu")):
        with mode():
            assert_close(fresh()(tensor).numpy(), expected, 1e-5)
    compiled = torch.compile(fresh(), backend="eager")
    assert_close(compiled(tensor.requires_grad_()).detach().numpy(), expected, 1e-5)
    assert len(backend.calls) == 3 * 5
