"""The loss of a model that compares its batches with earlier ones."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from kinfold.core import checks
from kinfold.memory import CrossBatchMemory, check_loss


class Remembering(keras.losses.Loss):
    """What Keras calls for the loss: with the memory in training, without it in evaluation."""

    def __init__(self, loss: Any, size: int, warmup: int) -> None:
        self.alone = check_loss(loss)
        self.size = checks.count(size, "memory_size")
        self.warmup = checks.count(warmup, "memory_warmup", least=0)
        super().__init__(name=loss.name)
        # The call alone: Keras would find a memory here, and load it twice.
        self.compare: Callable[..., Any] | None = None
        self._training = False

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if not self._training or self.compare is None:
            return self.alone(y_true, y_pred, sample_weight)
        return self.compare(y_true, y_pred, sample_weight)

    def make(self, embedding_size: int) -> CrossBatchMemory:
        memory = CrossBatchMemory(self.alone, self.size, embedding_size, self.warmup, name="memory")
        self.compare = memory.__call__
        return memory

    @contextlib.contextmanager
    def while_training(self, training: bool) -> Iterator[None]:
        self._training = training
        try:
            yield
        finally:
            self._training = False

    def compiled_with(self) -> dict[str, Any]:
        """The arguments of `compile` that it stands for."""
        return {
            "loss": keras.saving.serialize_keras_object(self.alone),
            "memory_size": self.size,
            "memory_warmup": self.warmup,
        }


def the_one(loss: Any) -> Any:
    """The loss, of which there must be one."""
    several = keras.tree.flatten(loss)
    if len(several) != 1:
        raise ValueError(
            f"With `memory_size` the model must have one loss. Received {len(several)} of them."
        )
    return several[0]


def embedding_size(shape: Any) -> int:
    """The size of an embedding, of the shape of the model's one output."""
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[1] is None:
        raise ValueError(
            "With `memory_size` the model must have one output, of shape [batch, d]. "
            f"Received a model with an output of shape {shape}."
        )
    return shape[1]
