"""Sums over k, and values whose gradient comes from somewhere else, in JAX."""

from functools import partial
from typing import Any

import jax

from kinfold.streaming.jax import Data, accumulator


@partial(jax.jit, static_argnums=0)
def repeated(fn: Any, count: jax.Array, tensors: Data, data: Data) -> Any:
    return _repeated(fn, count, tensors, data)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _repeated(fn: Any, count: Any, tensors: Data, data: Data) -> Any:
    start = accumulator(tensors[0][:, 0])
    total = jax.lax.fori_loop(0, count, lambda k, total: total + fn(k, *tensors, *data), start)
    return total.astype(tensors[0].dtype)


def _repeated_forward(fn: Any, count: Any, tensors: Data, data: Data) -> Any:
    return _repeated(fn, count, tensors, data), (count, tensors, data)


def _repeated_backward(fn: Any, saved: Any, g: Any) -> Any:
    count, tensors, data = saved

    def step(k: Any, sums: Any) -> Any:
        value, pull = jax.vjp(lambda *tensors: fn(k, *tensors, *data), *tensors)
        return tuple(s + p for s, p in zip(sums, pull(g.astype(value.dtype)), strict=True))

    sums = jax.lax.fori_loop(0, count, step, tuple(map(accumulator, tensors)))
    return None, tuple(s.astype(t.dtype) for s, t in zip(sums, tensors, strict=True)), None


_repeated.defvjp(_repeated_forward, _repeated_backward)


def with_equation(fast: Any, equation: Any, tensors: Data, data: Data) -> jax.Array:
    return _with_equation(fast, equation, tensors, data)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _with_equation(fast: Any, equation: Any, tensors: Data, data: Data) -> Any:
    return fast(*tensors, *data)


def _with_equation_forward(fast: Any, equation: Any, tensors: Data, data: Data) -> Any:
    value, pull = jax.vjp(lambda *tensors: fast(*tensors, *data), *tensors)
    return value, (pull, tensors, data)


def _with_equation_backward(fast: Any, equation: Any, saved: Any, g: Any) -> Any:
    pull, tensors, data = saved
    return _gradients(equation, pull(g), tensors, g, data), None


_with_equation.defvjp(_with_equation_forward, _with_equation_backward)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _gradients(equation: Any, found: Any, tensors: Data, g: Any, data: Data) -> Any:
    """The gradients that were found, which change as those of the equation do."""
    return found


@_gradients.defjvp
def _gradients_jvp(equation: Any, primals: Any, tangents: Any) -> Any:
    found, tensors, g, data = primals

    def of_equation(tensors: Data, g: Any) -> Any:
        return jax.vjp(lambda *tensors: equation(*tensors, *data), *tensors)[1](g)

    return found, jax.jvp(of_equation, (tensors, g), tangents[1:3])[1]
