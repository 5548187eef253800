"""One device; and what a run asks of several, which the module of each backend answers."""

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import keras

from kinfold import distributed


class Devices:
    """The devices of a run, as one of its processes sees them; this one alone.

    Attributes:
        count: how many devices share a batch.
        rank: number of this process; 0 writes the run folder, the others write nothing.
    """

    count = 1
    rank = 0
    global_arrays = True  # whether a loss sees the whole batch, not a device's rows

    def scope(self) -> AbstractContextManager[Any]:
        """A model that is built and trained within lies on all the devices."""
        return contextlib.nullcontext()

    def measuring(self) -> AbstractContextManager[Any]:
        """Within, each device embeds all that is measured."""
        return contextlib.nullcontext()

    def wait(self) -> None:
        """Go on when rank 0 has called this."""

    def normalise_together(self, model: keras.Model) -> None:
        """Let batch normalisation take the statistics of the whole batch."""
        if self.global_arrays:
            return
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                # Not `synchronized`, which TensorFlow alone has, and which would be saved.
                layer._moments = _Moments(layer.axis)


class _Moments:
    """What a layer of batch normalisation asks for its mean and variance."""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def __call__(self, inputs: Any, mask: Any) -> tuple[Any, Any]:
        rank = len(inputs.shape)
        return distributed.moments(inputs, [i for i in range(rank) if i != self.axis % rank])
