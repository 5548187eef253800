"""The processes of `jax.distributed`: Keras's `fit` puts a batch together from the part of each."""

import functools
import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils

from kinfold.distributed.processes import refuse_different


def rank_and_size() -> tuple[int, int]:
    """The index of this process, and the number of processes."""
    # Where there is one, JAX is not asked: an answer starts it, and then `jax.distributed` cannot.
    if not jax.distributed.is_initialized():
        return 0, 1
    return jax.process_index(), jax.process_count()


def all_said(said: bytes) -> list[bytes]:
    """What each process says."""
    sizes = multihost_utils.process_allgather(np.array([len(said)], np.int32)).ravel()
    sent = np.zeros(sizes.max(), np.uint8)
    sent[: len(said)] = np.frombuffer(said, np.uint8)
    found = multihost_utils.process_allgather(sent)
    return [row[:size].tobytes() for row, size in zip(np.asarray(found), sizes, strict=True)]


def predict(model: Any, x: Any, batch_size: int) -> Any:
    """What the model gives for `x`, computed by this process alone.

    `predict` of Keras fails here: it cannot fetch rows that lie in other processes.

    Raises:
        NotImplementedError: the variables are divided over processes.
    """
    variables = [model.trainable_variables, model.non_trainable_variables]
    for variable in [*variables[0], *variables[1]]:
        if not variable.value.is_fully_replicated:
            raise NotImplementedError(
                f"A process of JAX embeds with its own copy of the variables, and {variable.path} "
                "is divided over devices. Use keras.distribution.DataParallel, or measure a saved "
                "model with kinfold.metrics.retrieval_metrics."
            )
    own = [[variable.value.addressable_data(0) for variable in some] for some in variables]
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)  # that no layer lays its outputs over all devices
    try:
        call = _compiled(model)
        found = [
            jax.tree.map(np.asarray, call(*own, _rows(x, slice(start, start + batch_size))))
            for start in range(0, len(keras.tree.flatten(x)[0]), batch_size)
        ]
    finally:
        keras.distribution.set_distribution(distribution)
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *found)


def _rows(x: Any, rows: slice) -> Any:
    return keras.tree.map_structure(lambda part: np.asarray(part[rows]), x)


@functools.lru_cache(maxsize=1)  # the epochs of one model
def _compiled(model: Any) -> Any:
    return jax.jit(lambda *given: model.stateless_call(*given, training=False)[0])


def values_of_rank_0(model: Any) -> AbstractContextManager[None]:
    """Nothing to do: JAX keeps the copies of all processes the same."""
    return nullcontext()


def gathered(rows: np.ndarray, facts: dict[str, Any]) -> np.ndarray:
    """The rows of all processes, one after the other; `facts` must be the same in all."""
    refuse_different([json.loads(said) for said in all_said(json.dumps(facts).encode())])
    every = b"".join(all_said(rows.tobytes()))
    return np.frombuffer(every, rows.dtype).reshape(-1, rows.shape[1])
