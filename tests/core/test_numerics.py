"""The forms that every loss is built of, against plain NumPy in float64, at their edges too."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from keras import ops

from kinfold import distances, losses
from kinfold.core.numerics import (
    any_in_row,
    count_in_row,
    largest,
    log_sum_exp,
    or_nan,
    square_root,
    unit_rows,
)
from native import BACKEND, assert_close, float64, value_and_gradients

RNG = np.random.default_rng(0)
MASK = RNG.random((6, 9)) < 0.5
MASK[2] = False
only_torch = pytest.mark.skipif(BACKEND != "torch", reason="a feature of PyTorch alone")


def slopes(fn: Callable[[np.ndarray], np.ndarray], x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Gradient of the sum of fn by central differences."""
    out = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[at] += step
        down[at] -= step
        out[at] = (fn(up).sum() - fn(down).sum()) / (2 * step)
    return out


def masked(z: np.ndarray) -> np.ndarray:
    rows = [np.logaddexp.reduce(row[m]) if m.any() else 0.0 for row, m in zip(z, MASK, strict=True)]
    return np.array(rows)


FORMS = {
    "log_sum_exp": (lambda z: log_sum_exp(z, mask_tensor()), masked),
    "log_sum_exp_of_all": (log_sum_exp, lambda z: np.logaddexp.reduce(z, axis=1)),
    "log_sum_exp_of_columns": (
        lambda z: log_sum_exp(z, axis=0),
        lambda z: np.logaddexp.reduce(z, axis=0),
    ),
    "unit_rows": (unit_rows, lambda z: z / np.linalg.norm(z, axis=1, keepdims=True)),
    "square_root": (lambda z: square_root(z * z), np.abs),
    "largest": (lambda z: largest(z, 1), lambda z: z.max(1)),
    "squared": (
        lambda z: distances.get("squared_euclidean")(z, z[:4] * 2.0),
        lambda z: np.square(z[:, None] - 2 * z[None, :4]).sum(2),
    ),
}


def mask_tensor() -> Any:
    return ops.convert_to_tensor(MASK)


@pytest.mark.parametrize("name", FORMS)
def test_values_and_gradients(name: str) -> None:
    form, plain = FORMS[name]
    x = RNG.standard_normal((6, 9)) * 3
    with float64():
        value, (dx,) = value_and_gradients(form, x)
        assert_close(value, plain(x), 1e-12)
        assert_close(dx, slopes(plain, x), 1e-8)
    value, (dx,) = value_and_gradients(form, x.astype("float32"))
    assert_close(value, plain(x), 2e-6)
    assert_close(dx, slopes(plain, x), 2e-5)


def test_rows_without_any_and_far_logits() -> None:
    """Far below the largest nothing is left of a logit; a row of none is 0 and has no gradient."""
    z = np.array([[0.0, -50.0, -79.0, -300.0, -1e30, 900.0]] * 2, "float32")
    mask = np.array([[True] * 5 + [False], [False] * 6])
    value, (dz,) = value_and_gradients(lambda z: log_sum_exp(z, ops.convert_to_tensor(mask)), z)
    assert_close(value, [0.0, 0.0], 1e-7)
    assert_close(dz[0], [1.0, np.exp(-50.0), np.exp(-79.0), 0.0, 0.0, 0.0], 1e-6)
    assert dz[0, 1] == pytest.approx(np.exp(-50.0), rel=1e-4)
    assert not dz[0, 3:].any()
    assert not dz[1].any()
    nothing = np.full((1, 3), -np.inf, "float32")
    assert ops.convert_to_numpy(log_sum_exp(ops.convert_to_tensor(nothing)))[0] == -np.inf


def test_unit_rows_of_any_scale() -> None:
    x = np.array([[3e-30, 4e-30], [3e30, 4e30], [0.0, 0.0], [3.0, 4.0]], "float32")
    value, (dx,) = value_and_gradients(unit_rows, x)
    assert_close(value, [[0.6, 0.8], [0.6, 0.8], [0.0, 0.0], [0.6, 0.8]], 1e-6)
    assert np.all(np.isfinite(dx))
    assert not dx[2].any()


def test_equal_ones_share_a_gradient() -> None:
    x = np.array([[[1.0, 2.0], [1.0, 0.0], [0.0, 2.0]]], "float32")
    _, (dx,) = value_and_gradients(lambda x: largest(x, 1), x)
    assert_close(dx.sum(1), [[1.0, 1.0]], 1e-7)
    assert_close(dx[0, :2, 0], [0.5, 0.5], 1e-7)


def test_masks() -> None:
    mask = mask_tensor()
    assert list(ops.convert_to_numpy(any_in_row(mask))) == list(MASK.any(1))
    assert list(ops.convert_to_numpy(count_in_row(mask))) == list(MASK.sum(1))


def test_margins_are_not_rounded() -> None:
    loss = losses.PairContrastiveLoss(0.1, 0.7, reduction="sum", dtype="float64")
    with float64():
        value = loss(np.array([0, 0, 1]), np.array([[0.0], [0.3], [0.4]]))
        assert_close(ops.convert_to_numpy(value), 0.2 + 0.3 + 0.2 + 0.6, 1e-14)


@only_torch
def test_autocast_does_not_narrow() -> None:
    """In a bare loop under torch.autocast: the loss of the same embeddings in float32."""
    import torch

    y = np.arange(24) // 3
    x = torch.tensor(RNG.standard_normal((24, 8)).astype("float32"), requires_grad=True)
    arc_face = losses.ArcFaceLoss(8, 8)
    assert len(arc_face.trainable_variables) == 1
    for loss in (
        losses.CircleLoss(normalize=True),
        losses.SupConLoss(normalize=True, block_size=5),
        losses.PairContrastiveLoss(),
        arc_face,
    ):
        plain = loss(y, x)
        (expected,) = torch.autograd.grad(plain, x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(y, x)
        (dx,) = torch.autograd.grad(value, x)
        assert value.dtype == torch.float32
        assert_close(value.detach(), plain.detach(), 1e-6)
        assert_close(dx, expected, 1e-5)


@only_torch
def test_unit_rows_are_differentiated_twice_and_transformed() -> None:
    import torch

    x = torch.tensor(RNG.standard_normal((3, 4)), requires_grad=True)
    assert torch.autograd.gradcheck(unit_rows, x)
    assert torch.autograd.gradgradcheck(unit_rows, x)
    jacobian = torch.func.jacrev(unit_rows)(x.detach())
    assert_close(jacobian, torch.autograd.functional.jacobian(unit_rows, x.detach()), 1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_nan_alone_is_seen_as_nan(dtype: str) -> None:
    """Not what a sum in half precision cannot hold."""
    x = np.tile([60000.0, -60000.0], (3000, 8))
    for wrong in (False, True):
        x[0, 0] = np.nan if wrong else 1.0
        found = or_nan(ops.ones(()), ops.convert_to_tensor(x, dtype=dtype))
        assert np.isnan(float(found)) == wrong


@pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch alone")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_extent_tells_what_is_not_finite(dtype: str) -> None:
    import torch

    from kinfold.core.torch_numerics import extent

    numbers = torch.finfo(getattr(torch, dtype))
    for value in (0.0, numbers.max, -numbers.max):
        x = torch.tensor([[1.0, value], [-numbers.max, 3.0]], dtype=getattr(torch, dtype))
        assert torch.isfinite(extent(x))
    for value in (float("nan"), float("inf"), -float("inf")):
        assert not torch.isfinite(extent(torch.tensor([1.0, value, -2.0], dtype=x.dtype)))
