"""The fused kernels in JAX: run in Pallas's interpreter, and lowered for a GPU without one."""

import keras
import numpy as np
import pytest

from cases import batch
from kinfold import losses
from kinfold.streaming import fused_kernels
from native import assert_as_dense, assert_close, value_and_gradients

pytestmark = pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX alone")

CASES = [
    losses.CircleLoss(gamma=10.0, detach_weights=True),
    losses.MultiSimilarityLoss(reduction="none"),
    losses.SupConLoss(distance="inner_product"),
    losses.NTXentLoss(0.2, distance="euclidean"),
    losses.SoftNearestNeighborLoss(distance="squared_euclidean", remove_diagonal=False),
]


@pytest.mark.parametrize("loss", CASES, ids=lambda loss: loss.name)
def test_equal_to_dense(loss) -> None:
    """Among themselves, with weights and anchors of no pair; and with references."""
    y, x = batch(70, d=20, classes=12)
    y[:3] = [2**24, 2**24 + 1, 99]
    weight = np.linspace(0.5, 2.0, 70).astype("float32")
    assert_as_dense(lambda x: loss(y, x, weight), x)
    ref_y, ref_x = batch(41, d=20, seed=1, classes=12)
    assert_as_dense(lambda x, r: loss(y, x, weight, ref_labels=ref_y, ref_embeddings=r), x, ref_x)


@pytest.mark.parametrize("both", [True, False])
def test_paired(both: bool) -> None:
    x, r = batch(45)[1], batch(45, seed=1)[1]
    loss = losses.InfoNCELoss(0.2, both_directions=both)
    assert_as_dense(lambda x, r: loss(None, x, ref_embeddings=r), x, r)


def test_half_precision() -> None:
    import jax.numpy as jnp

    y, x = batch(40, d=16)
    half = np.asarray(jnp.asarray(x, "bfloat16").astype("float32"))
    exact, (gradient,) = value_and_gradients(lambda x: losses.CircleLoss(gamma=10.0)(y, x), half)
    loss = losses.CircleLoss(gamma=10.0, dtype="bfloat16")
    with fused_kernels():
        value, (dx,) = value_and_gradients(lambda x: loss(y, x), half)
    assert_close(value.astype("float32"), exact, 2**-8)
    assert_close(dx, gradient, 2**-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_lowered_for_a_gpu(dtype: str, monkeypatch) -> None:
    """What Pallas makes of the kernels for Triton."""
    import jax
    import jax.numpy as jnp

    from kinfold.streaming.fused.pallas import road

    monkeypatch.setattr(road, "on_gpu", lambda x: True)
    x, y = jnp.ones((200, 200), dtype), np.arange(200) // 4
    build = {"float32": losses.CircleLoss, "bfloat16": losses.SupConLoss}
    loss = build.get(dtype, losses.NTXentLoss)(dtype=dtype)
    step = jax.jit(jax.grad(lambda x: loss(y, x).astype("float32")))
    with fused_kernels():
        text = step.trace(x).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("triton") == 2  # a kernel forward, one backward


def test_products_are_loops() -> None:
    """In a row, wider embeddings would take more shared memory than a GPU has."""
    import jax
    import jax.numpy as jnp

    def products(d: int) -> int:
        y, loss = np.arange(64) // 4, losses.CircleLoss()
        with fused_kernels():
            return str(jax.make_jaxpr(jax.grad(lambda x: loss(y, x)))(jnp.ones((64, d)))).count(
                "dot_general"
            )

    assert products(64) == products(1024) > 0


def test_refused_where_arrays_may_be_sharded(monkeypatch) -> None:
    import jax

    from kinfold.streaming.fused.pallas import road

    monkeypatch.setattr(road, "on_gpu", lambda x: True)
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    y, x = batch(6)
    hidden = jax.jit(lambda x: losses.CircleLoss()(y, x))
    with fused_kernels(), pytest.raises(RuntimeError, match="there are 2 GPUs"):
        hidden(x)


def test_refused_without_a_gpu(monkeypatch) -> None:
    import jax

    if jax.default_backend() == "gpu":
        return
    y, x = batch(6)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with fused_kernels(), pytest.raises(RuntimeError, match="on no GPU"):
        losses.CircleLoss()(y, x)


def test_tf32_only_by_the_switch_of_jax() -> None:
    import jax

    from kinfold.streaming.fused.pallas import road

    assert not road._tf32()
    with jax.default_matmul_precision("tensorfloat32"):
        assert road._tf32()
    with jax.default_matmul_precision("highest"):
        assert not road._tf32()
