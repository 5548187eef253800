"""The fused kernels in JAX: run in Pallas's interpreter, and lowered for a GPU without one."""

import contextlib

import keras
import numpy as np
import pytest

from cases import batch
from kinfold import losses
from kinfold.streaming import fused_kernels
from native import assert_as_dense, assert_close, value_and_gradients

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX alone"),
    pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning"),
]

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


@pytest.fixture
def of_small_blocks(monkeypatch):
    """Blocks of 128 rows, and some references shared by three programs."""
    from kinfold.streaming.fused.pallas import launch

    right = launch.tiles_of
    monkeypatch.setattr(launch, "tiles_of", lambda x: right(x)._replace(block=128))
    monkeypatch.setattr(launch.sizes, "parts", lambda *_: 3)


@pytest.mark.parametrize("loss", CASES[::2] + CASES[3:4], ids=lambda loss: loss.name)
def test_several_blocks(loss, of_small_blocks) -> None:
    """Among themselves, with the last block half empty; and with fewer references."""
    y, x = batch(300, d=20, classes=70)
    assert_as_dense(lambda x: loss(y, x), x)
    ref_y, ref_x = batch(141, d=20, seed=1, classes=70)
    assert_as_dense(lambda x, r: loss(y, x, ref_labels=ref_y, ref_embeddings=r), x, ref_x)


@pytest.mark.parametrize("both", [True, False])
def test_several_blocks_of_pairs(both: bool, of_small_blocks) -> None:
    x, r = batch(300)[1], batch(300, seed=1)[1]
    loss = losses.InfoNCELoss(0.2, both_directions=both)
    assert_as_dense(lambda x, r: loss(None, x, ref_embeddings=r), x, r)


def test_several_blocks_of_half_precision(of_small_blocks) -> None:
    assert_near_in_half_precision(300)


def test_half_precision() -> None:
    assert_near_in_half_precision(40)


def assert_near_in_half_precision(n: int) -> None:
    import jax.numpy as jnp

    y, x = batch(n, d=16)
    half = np.asarray(jnp.asarray(x, "bfloat16").astype("float32"))
    for build in (lambda **how: losses.CircleLoss(gamma=10.0, **how), losses.SupConLoss):
        exact, (gradient,) = value_and_gradients(lambda x, build=build: build()(y, x), half)
        loss = build(dtype="bfloat16")
        with fused_kernels():
            value, (dx,) = value_and_gradients(lambda x, loss=loss: loss(y, x), half)
        assert_close(value.astype("float32"), exact, 2**-8)
        assert_close(dx, gradient, 2**-6)


def gpu_in_mind():
    """From 0.11 on, JAX lowers kernels for a GPU that is there, or that it is told of."""
    import jax

    if jax.default_backend() == "gpu" or jax.__version_info__ < (0, 11):
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice(device_kind="NVIDIA H100", num_cores=132, platform="gpu")
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


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
    step = jax.jit(jax.value_and_grad(lambda x: loss(y, x).astype("float32")))
    with fused_kernels(), gpu_in_mind():
        text = step.trace(x).lower(lowering_platforms=("cuda",)).as_text()
    # A kernel forward, one for the extra statistic where there is one, one backward.
    assert text.count("triton") == (2 if dtype == "float32" else 3)


def test_products_are_loops() -> None:
    """In a row, wider embeddings would take more shared memory than a GPU has."""
    import jax
    import jax.numpy as jnp

    def products(d: int) -> int:
        y, loss = np.arange(64) // 4, losses.CircleLoss(dtype="bfloat16")
        with fused_kernels():
            graph = jax.make_jaxpr(jax.grad(lambda x: loss(y, x)))(jnp.ones((64, d), "bfloat16"))
        return str(graph).count("dot_general")

    assert products(64) == products(1024) > 0


def test_tiles_by_the_gpu(monkeypatch) -> None:
    import types

    import jax
    import jax.numpy as jnp

    from kinfold.streaming.fused.pallas import launch

    def rows(capability: str, dtype: str = "bfloat16") -> int:
        device = types.SimpleNamespace(compute_capability=capability)
        monkeypatch.setattr(jax, "devices", lambda: [device])
        return launch.tiles_of(jnp.ones((4, 128), dtype)).backward.rows

    assert rows("9.0") == rows("10.0") == 128
    assert rows("8.0") == rows("12.0") == rows("gfx942") == 64
    assert rows("8.0", "float32") == rows("9.0", "float32")


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

    y, x = batch(300)

    def precisions() -> set[str]:
        with fused_kernels():
            step = jax.jit(jax.grad(lambda x: losses.CircleLoss()(y, x)))
            text = step.lower(x).as_text()
        products = [line for line in text.splitlines() if "dot_general" in line]
        return {name for name in ("HIGHEST", "HIGH,", "DEFAULT") for p in products if name in p}

    assert precisions() == {"HIGHEST"}
    with jax.default_matmul_precision("tensorfloat32"):
        assert precisions() == {"HIGH,"}
    with jax.default_matmul_precision("float32"):
        assert precisions() == {"HIGHEST"}
