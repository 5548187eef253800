"""What is run: Circle loss, ours and the peers', one step of it on each backend."""

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

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

Step = Callable[[], Any]


def jobs(backends: tuple[str, ...], quick: bool) -> Iterator[dict[str, Any]]:
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


def step(backend: str, implementation: str, batch: int, kind: str) -> Step:
    """One step of a loss that returns when its result is there; compiled where that is apart."""
    prepare = {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}[backend]
    return prepare(loss(implementation), *inputs(batch), kind == GRADIENT)


def product(backend: str, batch: int) -> Step:
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


def _jax(loss: Any, y: np.ndarray, x: np.ndarray, gradient: bool) -> Step:
    import jax

    def value(x: Any, y: Any) -> Any:
        return loss(y, x)

    there = jax.block_until_ready((jax.numpy.asarray(x), jax.numpy.asarray(y)))
    compiled = jax.jit(jax.value_and_grad(value) if gradient else value).lower(*there).compile()

    return lambda: jax.block_until_ready(compiled(*there))


def _tensorflow(loss: Any, y: np.ndarray, x: np.ndarray, gradient: bool) -> Step:
    import tensorflow as tf

    @tf.function
    def value(x: Any, y: Any) -> Any:
        return (loss(y, x),)

    @tf.function
    def value_and_gradient(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = loss(y, x)
        return total, tape.gradient(total, x)

    there = tf.constant(x), tf.constant(y)
    graph = value_and_gradient if gradient else value
    graph.get_concrete_function(*there)
    return lambda: [part.numpy() for part in graph(*there)]


def _torch(loss: Any, y: np.ndarray, x: np.ndarray, gradient: bool) -> Step:
    import torch

    labels, embeddings = torch.from_numpy(y), torch.from_numpy(x).requires_grad_(gradient)

    def backward() -> None:
        embeddings.grad = None
        loss(labels, embeddings).backward()

    def value() -> None:
        with torch.no_grad():
            loss(labels, embeddings)

    return backward if gradient else value
