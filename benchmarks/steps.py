"""One step of a loss on each backend: forward, or forward plus gradient."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Step = Callable[[], Any]


def prepare(
    backend: str, loss: Any, y: np.ndarray, parts: Sequence[np.ndarray], gradient: bool
) -> Step:
    """A step of loss(y, *parts) that returns when its result is there, compiled beforehand.

    The gradient is with respect to the parts, and to the `trainable_variables` of a loss that has
    them; on JAX such a loss is called as `stateless_call(values, y, *parts)`.
    """
    return {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}[backend](
        loss, y, parts, gradient
    )


def _held(loss: Any) -> list[Any]:
    """The backend's own tensors of what the loss trains: of Keras's variables, or a module's."""
    return [getattr(v, "value", v) for v in getattr(loss, "trainable_variables", ())]


def _jax(loss: Any, y: np.ndarray, parts: Sequence[np.ndarray], gradient: bool) -> Step:
    import jax

    held = _held(loss)

    def value(y: Any, held: list[Any], *parts: Any) -> Any:
        return loss.stateless_call(held, y, *parts) if held else loss(y, *parts)

    there = jax.block_until_ready((jax.numpy.asarray(y), held, *map(jax.numpy.asarray, parts)))
    if gradient:
        value = jax.value_and_grad(value, argnums=tuple(range(1, len(there))))
    compiled = jax.jit(value).lower(*there).compile()

    return lambda: jax.block_until_ready(compiled(*there))


def _tensorflow(loss: Any, y: np.ndarray, parts: Sequence[np.ndarray], gradient: bool) -> Step:
    import tensorflow as tf

    held = _held(loss)

    @tf.function
    def value(y: Any, *parts: Any) -> Any:
        return (loss(y, *parts),)

    @tf.function
    def value_and_gradient(y: Any, *parts: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(parts)
            total = loss(y, *parts)
        gradients = tape.gradient(total, [*parts, *held])
        # The gradient of a table that rows are taken from has parts of its own.
        flat = tf.nest.flatten((total, gradients), expand_composites=True)
        return [part for part in flat if part is not None]

    there = tf.constant(y), *map(tf.constant, parts)
    graph = value_and_gradient if gradient else value
    graph.get_concrete_function(*there)
    return lambda: [part.numpy() for part in graph(*there)]


def _torch(loss: Any, y: np.ndarray, parts: Sequence[np.ndarray], gradient: bool) -> Step:
    import torch

    labels = torch.from_numpy(y)
    embeddings = [torch.from_numpy(part).requires_grad_(gradient) for part in parts]
    leaves = [*embeddings, *_held(loss)]

    def backward() -> list[Any]:
        for leaf in leaves:
            leaf.grad = None
        total = loss(labels, *embeddings)
        total.backward()
        return [total.detach(), *(leaf.grad for leaf in leaves)]

    def value() -> None:
        with torch.no_grad():
            loss(labels, *embeddings)

    return backward if gradient else value
