"""What is run: Circle loss, ours and the peers', one step of it on each backend."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import steps

OURS, KERAS, PML = "kinfold", "keras", "pytorch-metric-learning"
IMPLEMENTATIONS = (OURS, KERAS, PML)
GRADIENT, EVALUATION = "gradient", "evaluation"
BACKENDS = ("jax", "torch", "tensorflow")

SMALL = (32, 64, 128, 256, 512)
LARGE = (1024, 2048, 4096, 8192)
OURS_ONLY = (65536,)  # a dense matrix would be 17 GB
QUICK = (32, 512, 2048)

DIM = 128
CLASS_SIZE = 4
GAMMA, MARGIN = 80.0, 0.4


def jobs(backends: Sequence[str], quick: bool) -> Iterator[dict[str, Any]]:
    """What each process measures, one after the other: a backend, a batch size and steps.

    The steps of a process are timed in turns, so that what slows the machine down slows all of them
    down. Only the first is weighed, since what it leaves allocated serves the next; the peers are
    weighed in processes of their own.
    """
    sizes = QUICK if quick else SMALL + LARGE + OURS_ONLY
    for backend in backends:
        peers = (KERAS, PML) if backend == "torch" else (KERAS,)
        for batch in sizes:
            job = {"backend": backend, "batch": batch, "time": True}
            if batch in OURS_ONLY:
                yield {**job, "steps": [(OURS, GRADIENT)]}
                continue
            evaluation = [(OURS, EVALUATION)] if batch in LARGE else []
            beside = [(name, GRADIENT) for name in peers]
            yield {**job, "steps": [(OURS, GRADIENT), *evaluation, *beside]}
            for name in peers:
                yield {**job, "time": False, "steps": [(name, GRADIENT)]}


def flops(row: dict[str, Any]) -> int:
    """Operations in the matrix products of a forward and backward pass, the way it takes them."""
    return (4 if row["implementation"] == OURS else 6) * row["batch"] ** 2 * DIM


def inputs(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels [batch] in classes of four, in random order, and embeddings [batch, d]."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(batch, dtype="int32") // CLASS_SIZE)
    x = rng.standard_normal((batch, DIM), dtype="float32")
    return y, x / np.linalg.norm(x, axis=1, keepdims=True)


def loss(implementation: str) -> Callable[[Any, Any], Any]:
    """The loss as a function of labels and embeddings."""
    if implementation == OURS:
        from kinfold.losses import CircleLoss

        return CircleLoss(gamma=GAMMA, margin=MARGIN)
    if implementation == KERAS:
        import keras

        return keras.losses.Circle(gamma=GAMMA, margin=MARGIN)
    if importlib.util.find_spec("pytorch_metric_learning") is None:
        raise ModuleNotFoundError("not installed: make bench")
    from pytorch_metric_learning.losses import CircleLoss as Peer

    peer = Peer(m=MARGIN, gamma=GAMMA)
    return lambda y, x: peer(x, y)


def step(backend: str, implementation: str, batch: int, kind: str) -> steps.Step:
    """One step of a loss that returns when its result is there; compiled where that is apart."""
    y, x = inputs(batch)
    return steps.prepare(backend, loss(implementation), y, [x], kind == GRADIENT)


def product(backend: str, batch: int) -> steps.Step:
    """x @ x.T of [batch, d] embeddings, to time the machine's own rate with."""
    x = inputs(batch)[1]
    if backend == "jax":
        import jax

        matmul, there = jax.jit(lambda a: a @ a.T), jax.numpy.asarray(x)
        return lambda: jax.block_until_ready(matmul(there))
    if backend == "torch":
        import torch

        tensor = torch.from_numpy(x)
        return lambda: torch.mm(tensor, tensor.T)
    import tensorflow as tf

    constant = tf.constant(x)
    graph = tf.function(lambda a: tf.matmul(a, a, transpose_b=True))
    return lambda: graph(constant).numpy()
