"""The fused kernels: on a GPU, or on the CPU in Triton's interpreter.

The interpreter runs every line of the kernels. What only a GPU has, the order of its sums and what
its matrix units do to half precision and TF32, is tested where these tests run on one; that the
kernels compile for one is tested anywhere.
"""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from cases import CASES, Case, batch, expected_rows
from kinfold import losses
from kinfold.core import numerics
from kinfold.streaming import fused_kernels
from kinfold.streaming.family import refusal
from kinfold.streaming.fused import kernel
from native import assert_as_dense, assert_close, value_and_gradients

BACKEND = keras.backend.backend()
if BACKEND == "torch":
    import torch

    from kinfold.streaming.fused import tiles as sizes
    from kinfold.streaming.fused.triton import road

torch_only = pytest.mark.skipif(
    BACKEND != "torch" or not kernel.installed("triton"),
    reason="the kernels serve PyTorch; Triton is there on Linux",
)


def test_triton_is_installed_on_linux() -> None:
    """Whatever is tested here is tested with the kernels; PyTorch for Linux brings Triton."""
    beside = importlib.util.find_spec("torch") is not None and sys.platform == "linux"
    assert kernel.installed("triton") or not beside


def case(name: str, build, distance: str) -> Case:
    """A case that is compared with the dense equation alone."""
    return Case(name, build, lambda p, n: np.nan, distance)


HELD = [c for c in CASES if not refusal(c.build()) and c.distance in kernel.DISTANCES]
MORE = [
    case(
        "circle_detached", lambda **k: losses.CircleLoss(20.0, detach_weights=True, **k), "cosine"
    ),
    case(
        "squared",
        lambda **k: losses.SoftNearestNeighborLoss(distance="squared_euclidean", **k),
        "squared_euclidean",
    ),
    case("dot", lambda **k: losses.SupConLoss(distance="inner_product", **k), "inner_product"),
    case("far", lambda **k: losses.NTXentLoss(0.2, distance="euclidean", **k), "euclidean"),
]
every_loss = pytest.mark.parametrize("case", HELD + MORE, ids=str)


@pytest.fixture(autouse=True)
def _as_on_a_gpu():
    """What is masked in the end may overflow, and does so silently on a GPU."""
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def tiled(monkeypatch):
    """Chooses small tiles, so that a small batch takes many."""

    def choose(rows: int, columns: int, depth: int = 16, block: int = 48) -> None:
        def tiles(d, dtype, shared):
            tile = sizes.Tile(rows, columns, min(sizes.width_of(d), depth), 4, 1)
            given = str(dtype).endswith("float32")
            return sizes.Tiles(sizes.width_of(d), given, block, tile, tile, tile)

        monkeypatch.setattr(road, "tiles", tiles)

    return choose


@torch_only
@every_loss
def test_equal_to_dense(case: Case, tiled) -> None:
    """Batches that no tile divides, down to a single row, with weights and with references."""
    tiled(32, 16)
    weight = np.linspace(0.5, 2.0, 70).astype("float32")
    # A logit of 4 gamma rounds by that many units of 2^-24, and its exponential by as much, in the
    # kernels and in the equation: how near they are to each other depends on the processor.
    near = {"gradient": max(2e-5, getattr(case.build(), "gamma", 0.0) * 2.0**-22)}
    for n, reduction in ((1, "mean"), (7, None), (45, "mean")):
        y, x = batch(n, classes=max(n // 4, 2))
        loss = case.build(reduction=reduction, block_size=10**6)
        assert_as_dense(lambda x, loss=loss, y=y, n=n: loss(y, x, weight[:n]), x, **near)
    y, x = batch(23, d=20)
    ref_y, ref_x = batch(40, d=20, seed=1)
    loss = case.build(reduction="mean_with_sample_weight", block_size=10**6)
    assert_as_dense(
        lambda x, r: loss(y, x, weight[:23], ref_labels=ref_y, ref_embeddings=r),
        *(x, ref_x),
        **near,
    )


@torch_only
@pytest.mark.parametrize("case", HELD, ids=str)
def test_against_float64(case: Case) -> None:
    """Rows by the case's equation; anchors without a positive or a negative; large class ids."""
    y = np.array([0, 1, 2**24, 2**24 + 1, 4, 4, 4, 2**40, 2**40 + 1, 2**40, 2**24])
    x = batch(len(y))[1]
    # From norms and a product, the Euclidean distance of a row to itself is 3e-4.
    for diagonal in (True, False)[: 1 + (case.distance != "euclidean")]:
        loss = case.build(remove_diagonal=diagonal)
        with fused_kernels():
            rows, (dx,) = value_and_gradients(lambda x, loss=loss: loss.call(y, x), x)
        assert_close(rows, expected_rows(case, y, x, remove_diagonal=diagonal)[0], 1e-5)
        assert np.all(np.isfinite(dx))
    with fused_kernels():
        rows, (dx,) = value_and_gradients(lambda x: case.build()(np.arange(len(y)), x), x)
    assert not rows.any()
    assert not dx.any()


@torch_only
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", HELD, ids=str)
def test_half_precision_is_no_worse_than_dense(case: Case, dtype: str, monkeypatch) -> None:
    """Than the dense equation computed in that precision: products, logits and sums."""
    y, x = batch(48, d=16, classes=9)
    half = ops.convert_to_numpy(ops.cast(ops.cast(x, dtype), "float32"))
    truth = expected_rows(case, y, half)[0]
    _, (exact,) = value_and_gradients(
        lambda x: ops.sum(case.build(dtype="float64", block_size=10**6).call(y, x)),
        half.astype("float64"),
    )
    same = y[:, None] == y[None, :]
    loss, narrow = case.build(dtype=dtype), getattr(torch, dtype)

    def by_kernels(x: torch.Tensor) -> torch.Tensor:
        with fused_kernels():
            return loss.call(y, x)

    def dense(x: torch.Tensor) -> torch.Tensor:
        monkeypatch.setattr(numerics, "by_hand", lambda: None)  # which is float32 at least
        masks = (torch.tensor(m) for m in (same & ~np.eye(48, dtype=bool), ~same))
        return loss.per_anchor(loss.distance(x, x), *masks)

    errors = []
    for fn in (by_kernels, dense):
        leaf = torch.tensor(half, dtype=narrow, requires_grad=True)
        rows = fn(leaf)
        rows.sum().backward()
        errors.append(
            (
                np.abs(rows.detach().double().numpy() - truth).max(),
                np.linalg.norm(leaf.grad.double().numpy() - exact),
            )
        )
    assert errors[0][0] <= errors[1][0]
    assert errors[0][1] <= errors[1][1]


@torch_only
@pytest.mark.parametrize("d", [3, 128, 200, 512, 600, 1024])
def test_every_width(d: int) -> None:
    """With the tiles that a GPU gets."""
    y, x = batch(12, d=d, classes=3)
    loss = losses.CircleLoss(gamma=20.0, block_size=100)
    assert_as_dense(lambda x: loss(y, x), x)
    narrow = losses.CircleLoss(gamma=20.0, dtype="bfloat16")
    with fused_kernels():
        _, (dx,) = value_and_gradients(lambda x: narrow(y, x), x)
    _, (exact,) = value_and_gradients(lambda x: loss(y, x), x)
    assert_close(dx, exact, 0.05)


@torch_only
def test_tiles_change_nothing_and_runs_agree(tiled) -> None:
    y, x = batch(70, d=40, classes=7)
    loss = losses.CircleLoss()
    results = []
    for sizes in ((32, 32), (32, 32), (32, 16, 64, 1000), (64, 128, 32, 20)):
        tiled(*sizes)
        with fused_kernels():
            results.append(value_and_gradients(lambda x: loss(y, x), x))
    (value, (dx,)), (again, (dx_again,)), *others = results
    assert value == again
    np.testing.assert_array_equal(dx, dx_again)
    for other, (gradient,) in others:
        assert_close(other, value, 1e-6)
        assert_close(gradient, dx, 1e-5)


@torch_only
def test_labels_of_unlike_dtypes_and_equal_references() -> None:
    """References that are the embeddings themselves, under labels of their own."""
    y, x = batch(20)
    other = y.astype("int32")[::-1].copy()
    loss = losses.CircleLoss(gamma=10.0, block_size=100)
    assert_as_dense(lambda x: loss(y, x, ref_labels=other, ref_embeddings=x), x)


@torch_only
def test_small_weights_do_not_vanish_in_half_precision() -> None:
    y, x = batch(40, d=16)
    loss = losses.CircleLoss(dtype="float16", reduction="sum")
    with fused_kernels():
        _, (dx,) = value_and_gradients(lambda x: loss(y, x), x)
        _, (small,) = value_and_gradients(lambda x: 1e-3 * loss(y, x), x)
    assert_close(1e3 * small, dx, 2e-3)


@torch_only
@pytest.mark.parametrize(
    "options",
    [{}, {"both_directions": False}, {"train_temperature": True}, {"normalize": True}],
    ids=str,
)
@pytest.mark.parametrize("n", [1, 45])
def test_paired(n: int, options: dict, tiled) -> None:
    tiled(16, 32)
    assert_pairs_as_dense(lambda how: losses.InfoNCELoss(0.02, reduction=how, **options), n)


@torch_only
@pytest.mark.parametrize("options", [{}, {"train_scale_and_bias": False}, {"normalize": True}])
@pytest.mark.parametrize("n", [1, 45])
def test_sigmoids(n: int, options: dict, tiled) -> None:
    tiled(16, 32)
    assert_pairs_as_dense(lambda how: losses.SigLIPLoss(4.0, -2.0, reduction=how, **options), n)


def assert_pairs_as_dense(build, n: int) -> None:
    """Value and gradients of a loss of pairs, those of its variables too; `build` by reduction."""
    x, r = batch(n)[1], batch(n, seed=1)[1]
    weight = np.linspace(0.5, 2.0, n).astype("float32")
    for reduction in ("mean", "none"):
        loss = build(reduction)
        loss._warn_if_untrained = lambda: None
        assert_as_dense(lambda x, r, loss=loss: loss(None, x, weight, ref_embeddings=r), x, r)
        if loss.trainable_variables:
            slopes = []
            for wanted in (True, False):
                with fused_kernels(wanted):
                    value = loss(None, x, weight, ref_embeddings=r).sum()
                variables = [v.value for v in loss.trainable_variables]
                slopes.append(np.array([g.item() for g in torch.autograd.grad(value, variables)]))
            assert_close(*slopes, 1e-5)


@torch_only
def test_no_derivatives_are_taken_where_none_are_asked_for(monkeypatch) -> None:
    from kinfold.streaming.fused.triton import launch

    taken, right = [], launch.add_product
    monkeypatch.setattr(launch, "add_product", lambda *a: taken.append(a) or right(*a))
    x, r = (torch.tensor(batch(9, seed=i)[1], requires_grad=True) for i in (0, 1))
    loss = losses.SigLIPLoss(train_scale_and_bias=False)
    with fused_kernels():
        with torch.no_grad():
            loss(None, x, ref_embeddings=r)
        loss(None, x.detach(), ref_embeddings=r.detach())
        assert not taken
        loss(None, x, ref_embeddings=r)
    assert taken


@torch_only
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sigmoids_in_half_precision(dtype: str) -> None:
    """Partners that are told well: what is left of their derivative is small."""
    x = batch(48, d=16)[1]
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    half = ops.convert_to_numpy(ops.cast(ops.cast(x, dtype), "float32"))
    numbers = {"scale": 20.0, "bias": -10.0, "train_scale_and_bias": False}

    def value(x, dtype):
        return losses.SigLIPLoss(**numbers, dtype=dtype)(None, x, ref_embeddings=x)

    exact, (gradient,) = value_and_gradients(lambda x: value(x, "float64"), half.astype("float64"))
    with fused_kernels():
        found, (dx,) = value_and_gradients(lambda x: value(x, dtype), half)
    assert_close(found.astype("float64"), exact, 2**-8 if dtype == "bfloat16" else 2**-10)
    assert_close(dx, gradient, 2**-7)


@torch_only
def test_gradients_only_where_asked() -> None:
    y, x = batch(12)
    ref_y, ref_x = batch(30, seed=1)
    loss = losses.MultiSimilarityLoss()
    with fused_kernels():
        _, both = value_and_gradients(
            lambda x, r: loss(y, x, ref_labels=ref_y, ref_embeddings=r), x, ref_x
        )
        _, (dx,) = value_and_gradients(
            lambda x: loss(y, x, ref_labels=ref_y, ref_embeddings=ref_x), x
        )
        _, (dr,) = value_and_gradients(
            lambda r: loss(y, x, ref_labels=ref_y, ref_embeddings=r), ref_x
        )
    np.testing.assert_array_equal(dx, both[0])
    np.testing.assert_array_equal(dr, both[1])


@torch_only
def test_products_of_float32_are_those_of_torch(monkeypatch) -> None:
    """Which heed its switches of precision, whatever they are called."""
    y, x = batch(70, d=20)
    taken = []
    product = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b, **k: taken.append(a.dtype) or product(a, b, **k))
    with fused_kernels():
        value_and_gradients(lambda x: losses.CircleLoss()(y, x), x)
    assert set(taken) == {torch.float32}


@torch_only
def test_taken_where_they_are_asked_for(monkeypatch) -> None:
    y, x = batch(8)
    taken = []
    monkeypatch.setattr(road, "rows", lambda *a: taken.append(a) or (ops.ones(8), y > 0))
    with fused_kernels():
        with fused_kernels(False):
            losses.CircleLoss()(y, x)
        assert not taken
        losses.CircleLoss()(y, x)
    assert len(taken) == 1


REFUSED = [
    (lambda: losses.TripletLoss(), {}, "TripletLoss is not made of two log-sum-exps"),
    (lambda: losses.MultiSimilarityLoss(epsilon=0.1), {}, "not made of two log-sum-exps"),
    (lambda: losses.CircleLoss(distance="manhattan"), {}, "distance='manhattan'"),
    (lambda: losses.CircleLoss(), {"d": 1025}, "at most 1024 numbers. Received: 1025"),
    (lambda: losses.CircleLoss(), {"pairs": True}, "compare class ids"),
    (lambda: losses.CircleLoss(), {"n": 0}, "nothing to compare"),
]


@pytest.mark.parametrize(("build", "inputs", "message"), REFUSED)
def test_refused(build, inputs: dict, message: str) -> None:
    y, x = batch(inputs.get("n", 6), d=inputs.get("d", 8))
    y = y[:, None] == y[None, :] if inputs.get("pairs") else y
    with fused_kernels(), pytest.raises(RuntimeError, match=message):
        build()(y, x)
    build()(y, x)  # and served by another road where nobody asked


@torch_only
def test_refused_where_it_cannot_run(monkeypatch) -> None:
    y, x = batch(6)
    with fused_kernels(), pytest.raises(RuntimeError, match="Received embeddings of float64"):
        losses.CircleLoss(dtype="float64")(y, x)
    with monkeypatch.context() as older:
        older.setattr("triton.__version__", "3.3.1")
        with fused_kernels(), pytest.raises(RuntimeError, match=r"need Triton 3\.4.*3\.3\.1"):
            losses.CircleLoss()(y, x)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    if not torch.cuda.is_available():
        with fused_kernels(), pytest.raises(RuntimeError, match="embeddings are on cpu"):
            losses.CircleLoss()(y, x)
    monkeypatch.setattr(kernel, "installed", lambda package: False)
    with fused_kernels(), pytest.raises(RuntimeError, match=r"pip install 'kinfold\[gpu\]'"):
        losses.CircleLoss()(y, x)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow alone")
def test_refused_elsewhere() -> None:
    y, x = batch(6)
    with fused_kernels(), pytest.raises(RuntimeError, match="none for TensorFlow"):
        losses.CircleLoss()(y, x)


COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kinfold.losses import circle_triton
from kinfold.streaming.fused.triton import forward as f, gradient as g, sigmoid as s

straight = [f.linear_logit] * 2 + [f.linear_slope] * 2
(p, ps), (n, ns) = (circle_triton.functions(side, True) for side in (True, False))
detached = [p, n, ps, ns]
FLOATS = ("squares", "ref_squares", "scale", "terms", "ref_terms", "stats", "dots", "weights")
FLOATS += ("numbers", "losses", "pulls")
for kernel, dtype, functions, extra, distance, scaled, products in (
    (f.sums, "bf16", detached, "none", "cosine", False, False),
    (f.sums, "fp32", straight, "none", "euclidean", False, True),
    (f.extras, "fp32", straight, "each", "euclidean", False, False),
    (g.derivatives, "fp16", detached, "each", "inner_product", True, False),
    (g.derivatives, "fp32", straight, "mean", "cosine", False, True),
    (s.sigmoids, "bf16", straight, "none", "cosine", False, False),
):
    constants = dict(
        zip(("P", "N", "PS", "NS"), functions),
        DISTANCE=distance, SCALED=scaled, DIAGONAL=False, EXTRA=extra, ROWS=True, COLUMNS=True,
        D=128, BM=64, BN=64, BK=64, WIDEN=False, GIVEN=products, GRADIENT=True,
    )
    constants = {name: constants[name] for name in kernel.arg_names if name in constants}
    signature = {}
    for arg in kernel.arg_names:
        if arg in constants:
            signature[arg] = "constexpr"
        elif arg in ("x", "r") or (arg == "out" and kernel in (g.derivatives, s.sigmoids)):
            signature[arg] = "*" + dtype
        elif arg in FLOATS or arg == "out":
            signature[arg] = "*fp32"
        elif arg in ("n", "m", "stride", "count", "ref_count", "ahead"):
            signature[arg] = "i32"
        elif arg[-1].isdigit():
            signature[arg] = "fp32"
        else:
            signature[arg] = "*i32"
    given = {(i,): constants[a] for i, a in enumerate(kernel.arg_names) if a in constants}
    built = triton.compile(
        ASTSource(kernel, signature, given, {}),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True},
    )
    assert built.metadata.shared <= 227 * 1024
    assert ("wgmma" in built.asm["ptx"]) == (dtype != "fp32")  # the matrix units, no silent TF32
    print(kernel.__name__, dtype, len(built.asm["cubin"]) > 0)
"""


@torch_only
def test_kernels_compile(tmp_path) -> None:
    """For a Hopper GPU, without one; one combination of each of their choices."""
    environment = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("True") == 6
