"""What the tests need of the backend under test: native tensors, gradients, float64."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold.streaming import road

BACKEND = keras.backend.backend()


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Make float64 available, which JAX switches on globally and the others always have."""
    if BACKEND == "jax":
        import jax

        with jax.enable_x64(True):
            yield
    else:
        yield


def value_and_gradients(
    fn: Callable[..., Any], *arrays: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Value of `fn` at the arrays, and the gradient of its sum with respect to each of them."""
    return with_gradients(fn)(*arrays)


def with_gradients(fn: Callable[..., Any]) -> Callable[..., tuple[np.ndarray, list[np.ndarray]]]:
    """A function from arrays, and data as keywords, to what `value_and_gradients` returns.

    Called again with arrays of the same shape, it is not compiled again.
    """
    if BACKEND != "jax":
        return lambda *arrays, **data: _with_gradients(functools.partial(fn, **data), arrays)
    import jax
    import jax.numpy as jnp

    def total(xs: Any, data: Any) -> Any:
        value = fn(*xs, **data)
        return jnp.sum(value), value

    # Compiled: quicker than op by op, where each new shape compiles each op anew.
    graph = jax.jit(jax.value_and_grad(total, has_aux=True))

    def found(*arrays: Any, **data: Any) -> Any:
        tensors = tuple(jnp.asarray(a) for a in arrays)
        (_, value), gradients = graph(tensors, data)
        return _as_numpy(value, gradients)

    return found


def _with_gradients(
    fn: Callable[..., Any], arrays: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, list[np.ndarray]]:
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tensors = tuple(tf.constant(a) for a in arrays)
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = fn(*tensors)
        gradients = tape.gradient(value, tensors, unconnected_gradients="zero")
    else:
        import torch

        tensors = tuple(torch.tensor(a, requires_grad=True) for a in arrays)
        value = fn(*tensors)
        gradients = torch.autograd.grad(value.sum(), tensors, allow_unused=True)
        gradients = [
            torch.zeros_like(t) if g is None else g for g, t in zip(gradients, tensors, strict=True)
        ]
    return _as_numpy(value, gradients)


def _as_numpy(value: Any, gradients: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    return ops.convert_to_numpy(value), [ops.convert_to_numpy(g) for g in gradients]


def number(value: Any) -> float:
    """A scalar tensor or variable as a float (PyTorch warns where it has a gradient)."""
    return float(ops.convert_to_numpy(value))


def assert_close(actual: Any, expected: Any, rtol: float, what: str = "") -> None:
    """Compare by the largest error against the largest value, as suits sums that cancel."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    assert np.all(np.isfinite(actual)), f"{what}: not finite: {actual}"
    if expected.size:
        error = np.abs(actual - expected).max()
        scale = np.abs(expected).max()
        assert error <= rtol * scale + 1e-12, f"{what}: error {error:.3g} of {scale:.3g}"


def on(name: str, fn: Any) -> Any:
    """`fn` by one road; "one_block" is the equation as it is written."""

    def by_road(*args: Any, **kwargs: Any) -> Any:
        with road(name):
            return fn(*args, **kwargs)

    return by_road


def assert_as_dense(fn: Any, *arrays: Any, value: float = 2e-6, gradient: float = 2e-5) -> None:
    """Check value and gradients by the kernels against those of the equation on one block."""
    got, gradients = value_and_gradients(on("fused", fn), *arrays)
    expected, dense = value_and_gradients(on("one_block", fn), *arrays)
    assert_close(got, expected, value, "value")
    for g, e in zip(gradients, dense, strict=True):
        assert_close(g, e, gradient, "gradient")
