"""Processes that each read their own part of the data, and what they must do alike.

These are the ranks of `torch.distributed` and the processes of `jax.distributed`. One process that
drives several devices reads all the data, and Keras cuts each batch for its devices.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from kinfold.core import backends

Value = TypeVar("Value")


def rank_and_size() -> tuple[int, int]:
    """The rank of this process, and the number of processes."""
    return backends.module(__name__).rank_and_size()


def share(count: int, rank: int, size: int) -> slice:
    """Which of `count` rows a rank has; the first ranks have one more where they are uneven."""
    each, more = divmod(count, size)
    start = rank * each + min(rank, more)
    return slice(start, start + each + (rank < more))


def agree(facts: dict[str, Any], drawn: int) -> int:
    """The number that rank 0 has drawn; all processes call this together.

    Args:
        facts: what must be the same everywhere, by the words for it; of JSON.
        drawn: a number that each process has drawn for itself.

    Raises:
        ValueError: the processes disagree; the message says what two of them have.
    """
    if rank_and_size()[1] == 1:
        return drawn
    said = json.dumps({"drawn": drawn, "facts": facts}).encode()
    told = [json.loads(other) for other in backends.module(__name__).all_said(said)]
    refuse_different([one["facts"] for one in told])
    return told[0]["drawn"]


def digest(array: np.ndarray) -> str:
    """A few characters that tell arrays apart."""
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=6).hexdigest()


def refuse_different(told: list[dict[str, Any]]) -> None:
    """Raise ValueError where a rank's facts are not those of rank 0."""
    for rank, other in enumerate(told):
        for name, value in told[0].items():
            if other.get(name) != value:
                raise ValueError(
                    f"The ranks of this run must agree on {name}. Rank 0 has {value}, and "
                    f"rank {rank} has {other.get(name)}."
                )


def check_embed() -> None:
    """Raise where no process can embed: Keras's `predict` cannot read what others hold on JAX."""
    size = rank_and_size()[1]
    if size > 1 and not hasattr(backends.module(__name__), "embed"):
        raise NotImplementedError(
            f"RetrievalEvaluation cannot embed on {size} processes of JAX, because `predict` of "
            "Keras cannot fetch rows that lie in other processes. Measure with "
            "kinfold.metrics.retrieval_metrics in one process, on a saved model."
        )


def embed(
    model: Any, x: Any, labels: np.ndarray, batch_size: int, predict: Callable[[Any], Any]
) -> np.ndarray:
    """What `predict` gives for the rows of `x`, float32 [n, d].

    Each rank of torch.distributed embeds some of the batches, and all get all the rows.

    Args:
        model: whose variables `predict` reads.
        x: array or structure of arrays [n, ...].
        labels: integers [n], which the ranks must have alike.
        batch_size: rows of a batch of `predict`.
        predict: takes rows of `x` and returns as many embeddings.

    Raises:
        ValueError: the ranks have other labels, or embeddings of another size.
    """
    by_ranks = getattr(backends.module(__name__), "embed", None)
    if by_ranks is None or rank_and_size()[1] == 1:
        return np.ascontiguousarray(predict(x), np.float32)
    return by_ranks(model, x, labels, batch_size, predict)


def once(call: Callable[[], Value]) -> Value:
    """What `call` returns; of several ranks of torch.distributed, rank 0 alone calls it.

    Raises:
        RuntimeError: on the other ranks, where the call raised on rank 0.
    """
    by_ranks = getattr(backends.module(__name__), "once", None)
    return call() if by_ranks is None or rank_and_size()[1] == 1 else by_ranks(call)
