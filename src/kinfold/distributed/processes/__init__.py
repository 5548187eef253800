"""Processes that each read their own part of the data, and what they must do alike.

These are the ranks of `torch.distributed` and the processes of `jax.distributed`. One process that
drives several devices reads all the data, and Keras cuts each batch for its devices.
"""

import hashlib
import json
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np

from kinfold.core import backends
from kinfold.core.in_turn import for_predict
from kinfold.core.stored import take

Value = TypeVar("Value")


def rank_and_size() -> tuple[int, int]:
    """The rank of this process, and the number of processes."""
    return backends.module(__name__).rank_and_size()


def share(count: int, rank: int, size: int) -> slice:
    """The rows of `count` that belong to a rank.

    If they do not divide evenly, the first ranks have one row more.
    """
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


def predict(model: Any, x: Any, batch_size: int | None, callbacks: list[Any]) -> Any:
    """What the model gives for all of `x`, in this process, as `predict` of Keras returns it."""
    by_process = getattr(backends.module(__name__), "predict", None)
    if by_process is None or rank_and_size()[1] == 1:
        given = for_predict(x, batch_size)
        return model.predict(given, batch_size=batch_size, verbose=0, callbacks=callbacks)
    return by_process(model, x, batch_size or 32)


def embed(
    model: Any, x: Any, labels: np.ndarray, batch_size: int, predict: Callable[[Any], Any]
) -> np.ndarray:
    """What `predict` gives for the rows of `x`, float32 [n, d].

    Of several processes each embeds some of the batches, and all get all the rows. The batches are
    those of one process, so that each row gets the same embedding to the last bit. All processes
    embed equally many, as a DistributedDataParallel that holds buffers needs: one past the end
    embeds the last batches too, and sends nothing of them.

    Args:
        model: whose variables `predict` reads.
        x: array or structure of arrays [n, ...].
        labels: integers [n], which the processes must have alike.
        batch_size: rows of a batch of `predict`.
        predict: takes rows of `x` and returns as many embeddings.

    Raises:
        ValueError: the processes have other labels, or embeddings of another size.
    """
    rank, size = rank_and_size()
    if size == 1:
        return np.ascontiguousarray(predict(x), np.float32)
    count = len(labels)
    batches = -(-count // batch_size)
    each = -(-batches // size)
    own = min(rank * each * batch_size, count)
    start = max(0, min(rank * each, batches - each)) * batch_size
    rows = slice(start, min(start + each * batch_size, count))
    module = backends.module(__name__)
    with module.values_of_rank_0(model):
        found = predict(keras.tree.map_structure(lambda part: take(part, rows), x))
    sent = np.ascontiguousarray(found, np.float32)[own - start :]
    facts = {
        "the number of examples to embed": count,
        "the labels of the examples to embed (a digest)": digest(labels),
        "the size of the embeddings": sent.shape[1],
    }
    return module.gathered(sent, facts)


def once(call: Callable[[], Value]) -> Value:
    """What `call` returns; of several processes rank 0 alone calls it.

    Raises:
        RuntimeError: on the other ranks, where the call raised on rank 0.
    """
    rank, size = rank_and_size()
    if size == 1:
        return call()
    value, problem, raised = None, "", None
    if rank == 0:
        try:
            value = call()
        except Exception as error:  # told first: the others would wait for it
            problem, raised = f"{type(error).__name__}: {error}", error
    value, problem = pickle.loads(
        backends.module(__name__).all_said(pickle.dumps((value, problem)))[0]
    )
    if raised is not None:
        raise raised
    if problem:
        raise RuntimeError(f"Rank 0 stopped with {problem}")
    return value
