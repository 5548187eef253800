"""Ranks: the processes or replicas of a run, which each hold some rows of the global batch.

What is reported is the loss of the global batch. On PyTorch every rank returns it, and its gradient
carries the number of ranks, which the mean of DistributedDataParallel takes out again; a loop that
sums gradients instead divides the loss by that number first. On TensorFlow replicas add up losses
and gradients, so each returns its share of both.

On JAX an array is the global batch itself, whatever devices it lies on: see `streaming.devices`.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kinfold.core import backends
from kinfold.core.checks import Tensor


def ranks(loss: Any, x: Tensor) -> Any:
    """The ranks whose rows belong to one batch; None where there is one, or the loss is local.

    Args:
        loss: has `gather_across_devices`.
        x: its embeddings.

    Raises:
        NotImplementedError: the rows of other ranks cannot be had here.
    """
    if not loss.gather_across_devices:
        return None
    return backends.module(__name__).ranks(x)


def facts(loss: Any, y_pred: Any, y: Tensor, *given: Any) -> dict[str, Any]:
    """What must be the same on every rank, by the words for it."""
    settings = {name: value for name, value in loss.get_config().items() if name != "name"}
    dtype = getattr(y_pred, "dtype", None)
    return {
        "the loss": type(loss).__name__,
        "the settings of the loss": settings,
        "the dtype of the embeddings": str(dtype).removeprefix("torch."),
        "the size of the embeddings": getattr(y_pred, "shape", (None,))[-1],
        "what the labels are": f"{str(y.dtype).removeprefix('torch.')} of rank {len(y.shape)}",
        "which arguments are given": [one is not None for one in given],
        "whether gradients are taken": getattr(y_pred, "requires_grad", False),
    }


def refuse(loss: Any, x: Tensor) -> None:
    """Raise where `loss` would see one rank's rows of a batch that several share."""
    if backends.module(__name__).ranks(x):
        raise NotImplementedError(
            f"{type(loss).__name__} would see only one rank's rows of the batch, and is not made "
            "for several ranks. Train it in one process, or take a loss of kinfold.losses."
        )


def shard(loss: Any, count: int) -> tuple[int, int]:
    """Where this rank's share of `count` classes begins and ends.

    Raises:
        NotImplementedError: this backend has no shards.
    """
    found = getattr(backends.module(__name__), "shard", None)
    if found is None:
        raise NotImplementedError(
            f"shard_classes=True is for PyTorch. On this backend leave it out; on JAX, "
            "keras.distribution.ModelParallel lays the prototypes over devices. Received: "
            f"{type(loss).__name__}(shard_classes=True)."
        )
    return found(count)


def keep_apart(model: Any, losses: Any) -> None:
    """See that the mean over ranks leaves the shards of losses alone, which are no copies."""
    for loss in keras.tree.flatten(losses):
        if getattr(loss, "shard_classes", False):
            backends.module(__name__).keep_apart(model, loss.trainable_variables)


def check_fit(model: Any) -> None:
    """Raise where Keras cannot train a model as it is asked to."""
    check = getattr(backends.module(__name__), "check_fit", None)
    if check is not None:
        check(model)


def share(value: Tensor) -> Tensor:
    """What a rank returns of the loss of its own rows alone, so that the mean over ranks counts."""
    shared = getattr(backends.module(__name__), "share", None)
    return value if shared is None else shared(value)


def check_variables(loss: Any) -> None:
    """Raise where replicas are to train variables of a loss that were made for one alone."""
    check = getattr(backends.module(__name__), "check_variables", None)
    if check is not None:
        check(loss)


def moments(x: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean and variance over `axes` of the rows of all ranks, each of the size of the others."""
    ranks = backends.module(__name__).ranks(x)
    if ranks is None:
        return ops.moments(x, axes)
    mean = ranks.summed(ops.mean(x, axes, keepdims=True)) / ranks.size
    variance = ranks.summed(ops.mean(ops.square(x - mean), axes)) / ranks.size
    return ops.squeeze(mean, axes), variance
