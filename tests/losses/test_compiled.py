"""The engine inside compiled steps: one trace a shape, the same numbers, no gradient unasked."""

import numpy as np
import pytest
from keras import ops

from cases import CASES, Case, batch
from kinfold.losses import CircleLoss, PairContrastiveLoss, PairLoss
from native import BACKEND, assert_close, on, value_and_gradients

# Dynamo looks at it on purpose, and hides the warning by other means.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute")


def compiled(fn):
    """`fn(x) -> value, gradient of a scalar fn`, in a step that the user compiles."""
    if BACKEND == "jax":
        import jax

        return jax.jit(jax.value_and_grad(fn))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=True)
        def step(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = fn(x)
            return value, tape.gradient(value, x)

        return lambda x: step(tf.constant(x))
    import torch

    # Everything of torch.compile but the C++ of its last stage, which needs a compiler.
    graph = torch.compile(lambda x: fn(2.0 * x) + 0.0, backend="aot_eager")

    def step(x):
        x = torch.tensor(x / 2.0, requires_grad=True)
        value = graph(x)
        (gradient,) = torch.autograd.grad(value, x)
        return value.detach(), gradient / 2.0

    return step


@pytest.mark.parametrize(
    ("case", "block_size"), [*((c, 5) for c in CASES), (CASES[0], None), (CASES[2], None)], ids=str
)
def test_inside_a_compiled_step(case: Case, block_size: int | None) -> None:
    y, x = batch(23)
    loss = case.build(block_size=block_size)
    expected, (dx,) = value_and_gradients(on("one_block", lambda x: loss(y, x)), x)
    value, gradient = compiled(lambda x: loss(y, x))(x)
    assert_close(ops.convert_to_numpy(value), expected, 2e-6)
    assert_close(ops.convert_to_numpy(gradient), dx, 2e-5)


class Counted(PairLoss):
    """Counts how often its equation is gone through, where that is only to trace it."""

    calls = 0

    def per_anchor(self, distance, positive, negative):
        if BACKEND != "torch":
            self.calls += 1
        return ops.max(ops.where(positive, distance, 0.0), axis=1)


@pytest.mark.parametrize("block_size", [None, 4])
def test_one_trace_a_shape(block_size: int | None) -> None:
    y, x = batch(12)
    loss = Counted(distance="euclidean", block_size=block_size)
    step = compiled(lambda x: loss(y, x))
    step(x)
    traces, calls = _traces(), loss.calls
    assert traces + calls > 0
    for scale in (1.0, 1.5, 2.0):
        step(x * np.float32(scale))
    assert (_traces(), loss.calls) == (traces, calls)


def _traces() -> int:
    if BACKEND != "torch":
        return 0
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize(
    "loss", [PairContrastiveLoss(block_size=4), CircleLoss(block_size=4)], ids=["general", "tiles"]
)
def test_evaluation_computes_no_gradient(loss: PairLoss) -> None:
    """By the matrix products: a gradient takes at least as many again as the value."""
    y, x = batch(12)
    without = _products(loss, y, x, gradient=False)
    assert 0 < without <= 0.55 * _products(loss, y, x, gradient=True)


def _products(loss: PairLoss, y, x, gradient: bool) -> float:
    """Matrix products in a block or tile of the loss; those of a loop's body count once."""
    if BACKEND == "jax":
        import jax

        fn = jax.grad(lambda x: loss(y, x)) if gradient else lambda x: loss(y, x)
        return jax.jit(fn).lower(x).compile().as_text().count(" dot(")
    if BACKEND == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=True)
        def run(x):
            if not gradient:
                return loss(y, x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = loss(y, x)
            return tape.gradient(value, x)

        return run.experimental_get_compiler_ir(tf.constant(x))(stage="optimized_hlo").count(
            " dot("
        )
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.tensor(x, requires_grad=gradient)
    with FlopCounterMode(display=False) as counter:
        value = loss(y, x)
        if gradient:
            value.backward()
    return counter.get_total_flops() / (2 * x.shape[0] ** 2 * x.shape[1])
