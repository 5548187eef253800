"""Gradients of gradients, and the transforms of torch.func: right for every loss, on every road."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from cases import CASES, batch
from kinfold import CrossBatchMemory, layers, losses
from kinfold.compat import tensorflow_similarity as tfsim
from kinfold.compat.pytorch_metric_learning import losses as pml
from native import BACKEND, assert_close, float64

only_torch = pytest.mark.skipif(BACKEND != "torch", reason="a feature of PyTorch alone")

Loss = Callable[[np.ndarray, Any], Any]
F64 = {"dtype": "float64"}
N, D = 11, 4
BY_BLOCKS = {
    **{case.name: case.build for case in CASES},
    "triplet_soft_all": lambda **k: losses.TripletLoss(None, "all", "all", **k),
    "triplet_soft_all_semi_hard": lambda **k: losses.TripletLoss(None, "all", "semi-hard", **k),
    "n_pairs": losses.NPairsLoss,
    "histogram": losses.HistogramLoss,
    "threshold_consistent_margin": losses.ThresholdConsistentMarginLoss,
    "intra_pair_variance": losses.IntraPairVarianceLoss,
}
PROTOTYPES = {
    "arc_face": losses.ArcFaceLoss,
    "sub_centers": lambda *a, **k: losses.ArcFaceLoss(*a, sub_centers=2, **k),
    "cos_face": losses.CosFaceLoss,
    "normalized_softmax": losses.NormalizedSoftmaxLoss,
    "sphere_face": losses.SphereFaceLoss,
    "large_margin_softmax": losses.LargeMarginSoftmaxLoss,
    "p2s_grad": losses.P2SGradLoss,
    "proxy_nca": losses.ProxyNCALoss,
    "soft_triple": losses.SoftTripleLoss,
    "proxy_anchor": losses.ProxyAnchorLoss,
    "manifold": lambda *a, block_size, **k: losses.ManifoldLoss(*a, **k),
}
PAIRED = {
    "info_nce": lambda **k: losses.InfoNCELoss(0.5, **k),
    "info_nce_one_way": lambda **k: losses.InfoNCELoss(0.5, False, **k),
    "sig_lip": lambda **k: losses.SigLIPLoss(train_scale_and_bias=False, **k),
}
VIEWS = ["SimCLRLoss", "SimSiamLoss", "Barlow", "VicReg", "MultiNegativesRankLoss"]
PML = [
    "SupConLoss",
    "NTXentLoss",
    "TupletMarginLoss",
    "AngularLoss",
    "LiftedStructureLoss",
    "TripletMarginLoss",
]


def other(y: np.ndarray) -> Any:
    return ops.convert_to_tensor(batch(len(y), d=D, seed=1, dtype="float64")[1])


def table() -> dict[str, Loss]:
    """Every loss as a function of embeddings, on one block and on several."""
    found: dict[str, Loss] = {}
    for name, build in BY_BLOCKS.items():
        for size in (None, 4):
            for reduction in ("mean", "none") if name in ("circle", "sup_con") else ("mean",):
                loss = build(block_size=size, reduction=reduction, **F64)
                loss._norms_checked = True
                found[f"{name}-{size}-{reduction}"] = loss
    for name, build in PROTOTYPES.items():
        for size in (None, 2):
            keras.utils.set_random_seed(3)
            loss = build(5, D, block_size=size, **F64)
            assert loss.trainable_variables
            found[f"{name}-{size}"] = loss
    for name, build in PAIRED.items():
        for size in (None, 4):
            loss = build(block_size=size, **F64)
            found[f"{name}-{size}"] = lambda y, x, loss=loss: loss(None, x, ref_embeddings=other(y))
    for name in VIEWS:
        loss = getattr(tfsim.losses, name)(reduction="sum", **F64)
        found[name] = lambda y, x, loss=loss: loss(other(y), x)
    for name in PML:
        loss = getattr(pml, name)()
        found[f"pml-{name}"] = lambda y, x, loss=loss: loss(x, y)
    return found


TABLE = table() if BACKEND == "torch" else {}


def native_gradient(loss: Loss, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    import torch

    at = torch.tensor(x, requires_grad=True)
    return torch.autograd.grad(loss(y, at).sum(), at)[0].numpy()


@only_torch
@pytest.mark.parametrize("name", TABLE)
def test_hessian_times_a_vector(name: str) -> None:
    """Against differences of first gradients, with an incoming gradient that is a constant."""
    import torch

    loss, (y, x) = TABLE[name], batch(N, d=D, classes=4, dtype="float64")
    v = np.random.default_rng(2).normal(size=x.shape)
    step = 1e-6
    up, down = (native_gradient(loss, y, x + s * step * v) for s in (1, -1))
    at = torch.tensor(x, requires_grad=True)
    (first,) = torch.autograd.grad(loss(y, at).sum(), at, create_graph=True)
    assert_close(first.detach(), native_gradient(loss, y, x), 1e-9)
    (second,) = torch.autograd.grad((first * torch.tensor(v)).sum(), at, allow_unused=True)
    second = torch.zeros_like(at) if second is None else second
    scale = max(np.abs(first.detach().numpy()).max(), 1.0) * 1e-5
    assert np.abs(second.numpy() - (up - down) / (2 * step)).max() <= 1e-4 * (
        np.abs(up - down).max() / (2 * step) + scale
    )


@only_torch
@pytest.mark.parametrize("name", TABLE)
def test_torch_func(name: str) -> None:
    import torch

    loss, (y, x) = TABLE[name], batch(N, d=D, classes=4, dtype="float64")
    at = torch.tensor(x)
    found = torch.func.grad(lambda x: loss(y, x).sum())(at)
    assert_close(found.detach(), native_gradient(loss, y, x), 1e-7)


@only_torch
def test_vmap_and_gradients_of_each_of_several_batches() -> None:
    import torch

    y = batch(N, classes=4)[0]
    x = torch.stack([torch.tensor(batch(N, d=D, seed=s, dtype="float64")[1]) for s in (1, 2)])
    for name in ("circle-None-mean", "sup_con-4-mean", "pair_contrastive-None-mean"):
        loss = TABLE[name]
        rows = torch.func.vmap(lambda x, loss=loss: loss(y, x))(x)
        assert_close(rows.detach(), [float(loss(y, one)) for one in x], 1e-9)
        each = torch.func.vmap(torch.func.grad(lambda x, loss=loss: loss(y, x)))(x)
        assert_close(each[1].detach(), native_gradient(loss, y, x[1].numpy()), 1e-9)


@only_torch
def test_what_cannot_be_differentiated_again_says_so() -> None:
    import torch

    y, x = batch(N, d=D)
    memory = CrossBatchMemory(losses.PairContrastiveLoss(block_size=3), 8, D)
    at = torch.tensor(x, requires_grad=True)
    (first,) = torch.autograd.grad(memory(y, at), at, retain_graph=True)
    assert torch.isfinite(first).all()
    with pytest.raises(NotImplementedError, match=r"second-order gradients.*memory"):
        torch.autograd.grad(memory(y, at), at, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"torch\.func.*stateless_call"):
        torch.func.grad(lambda x: memory(y, x))(at.detach())


@only_torch
def test_a_chunked_layer_is_differentiated_again() -> None:
    import torch

    embed = keras.Sequential([keras.layers.Dense(3, activation="tanh"), layers.L2Embedding(2)])
    chunked = layers.Chunked(embed, 4)
    x = torch.tensor(batch(N, d=D)[1], requires_grad=True)
    for layer in (chunked, embed):
        layer(x)
    seconds = []
    for layer in (embed, chunked):
        weights = [v.value for v in embed.trainable_variables]
        first = torch.autograd.grad(layer(x).pow(3).sum(), [x, *weights], create_graph=True)
        seconds.append(torch.autograd.grad(sum(f.pow(2).sum() for f in first), [x, *weights]))
    for a, b in zip(*seconds, strict=True):
        assert_close(a.detach(), b.detach(), 1e-5)


@pytest.mark.parametrize("name", ["triplet_soft_all-None-mean", "info_nce-4", "sup_con-4-mean"])
def test_second_derivatives_on_every_backend(name: str) -> None:
    y, x = batch(7, d=3, classes=3, dtype="float64")
    v = np.random.default_rng(2).normal(size=x.shape)
    with float64():
        build = {
            "triplet_soft_all-None-mean": lambda: losses.TripletLoss(None, "all", "all", **F64),
            "info_nce-4": lambda: losses.InfoNCELoss(0.5, block_size=4, **F64),
            "sup_con-4-mean": lambda: losses.SupConLoss(0.5, block_size=4, **F64),
        }[name]
        loss = build()
        if name == "info_nce-4":
            r = ops.convert_to_tensor(batch(7, d=3, seed=1, dtype="float64")[1])

            def value(x: Any) -> Any:
                return loss(None, x, ref_embeddings=r)
        else:

            def value(x: Any) -> Any:
                return loss(y, x)

        gradient, times = derivatives(value)
        up, down = (gradient(x + s * 1e-5 * v) for s in (1, -1))
        if (
            BACKEND == "tensorflow" and name == "sup_con-4-mean"
        ):  # a loop of XLA, which has no second gradient
            with pytest.raises(LookupError, match="No gradient defined"):
                times(x, v)
            return
        assert_close(times(x, v), (up - down) / 2e-5, 1e-5)


def derivatives(fn: Any) -> Any:
    """The gradient of fn, and its Hessian times a vector."""
    if BACKEND == "jax":
        import jax
        import jax.numpy as jnp

        gradient = jax.grad(fn)
        times = jax.jit(jax.grad(lambda x, v: jnp.sum(gradient(x) * v)))
        compiled = jax.jit(gradient)
        return lambda x: np.asarray(compiled(jnp.asarray(x))), times
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def first(x: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = fn(x)
            return tape.gradient(value, x)

        def second(x: Any, v: Any) -> Any:
            x = tf.constant(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = tf.reduce_sum(first(x) * v)
            return tape.gradient(value, x)

        return lambda x: first(tf.constant(x)).numpy(), second
    import torch

    def first(x: Any) -> Any:
        at = torch.tensor(x, requires_grad=True)
        return torch.autograd.grad(fn(at), at)[0].numpy()

    def second(x: Any, v: Any) -> Any:
        at = torch.tensor(x, requires_grad=True)
        (found,) = torch.autograd.grad(fn(at), at, create_graph=True)
        return torch.autograd.grad((found * torch.tensor(v)).sum(), at)[0].numpy()

    return first, second
