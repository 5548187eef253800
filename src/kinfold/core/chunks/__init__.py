"""Runs a layer over a batch chunk by chunk, each computed again in the backward pass.

Between the two passes nothing of a chunk is kept but its inputs, its outputs and the small state
that it started from (seeds, moving statistics), so that both see the same random numbers and the
state moves on once per chunk.
"""

from collections.abc import Sequence
from typing import Any

import keras

from kinfold.core import backends
from kinfold.core.checks import Tensor


def run(layer: keras.layers.Layer, size: int, inputs: Any, training: bool | None) -> Any:
    """Outputs of `layer` for a batch, in the memory of a chunk.

    Args:
        layer: built, with outputs [n, ...] for inputs [n, ...].
        size: rows per chunk; the last one may be smaller.
        inputs: a nest of tensors [n, ...].
        training: as layers take it.

    Returns:
        What `layer(inputs)` returns, differentiable with respect to its trainable variables and
        the inputs.
    """
    flat = keras.tree.flatten(inputs)
    sizes = [keras.ops.shape(x)[0] for x in flat]
    known = {n for n in sizes if isinstance(n, int)}
    if len(known) > 1:
        raise ValueError(
            "The inputs of a Chunked layer are cut along their first axis, which must be the "
            f"batch in all of them. Received shapes {[tuple(x.shape) for x in flat]}."
        )
    piece = Piece(layer, inputs, training)
    if known and min(known) <= size:
        return piece.whole(inputs)  # one chunk: nothing would be saved by computing it twice
    trainable = [v.value for v in piece.trainable]
    others = [v.value for v in piece.others]
    outputs, others = _backend().run(piece, size, trainable, others, flat)
    for variable, value in zip(piece.state(piece.others), piece.state(others), strict=True):
        variable.assign(value)
    return keras.tree.pack_sequence_as(piece.outputs, outputs)


class Piece:
    """A layer as a pure function of the values of its variables and of the inputs of a chunk.

    Attributes:
        trainable, others: the variables of the layer.
        changed: indices of the others to which a call so far has given new values. Frozen weights
            are excluded: copying them for each chunk costs too much memory.
        outputs: those of the last call, in their structure.
    """

    def __init__(self, layer: keras.layers.Layer, inputs: Any, training: bool | None) -> None:
        self.layer, self.inputs = layer, inputs
        self.options = {} if training is None else {"training": training}
        self.trainable = list(layer.trainable_variables)
        self.others = list(layer.non_trainable_variables)
        self.changed: set[int] = set()
        self.outputs: Any = None

    def whole(self, inputs: Any) -> Any:
        return self.layer(inputs, **self.options)

    def __call__(
        self, trainable: Sequence[Tensor], others: Sequence[Tensor], inputs: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Flat outputs for the flat inputs of a chunk, and the values of the others after it."""
        pairs = [*zip(self.trainable, trainable, strict=True)]
        pairs += zip(self.others, others, strict=True)
        with keras.StatelessScope(pairs, collect_losses=True) as scope:
            before = [scope.get_current_value(v) for v in self.others]
            self.outputs = self.whole(keras.tree.pack_sequence_as(self.inputs, list(inputs)))
        self._check(scope, inputs[0].shape[0], {id(v) for v, _ in pairs})
        after = [scope.get_current_value(v) for v in self.others]
        self.changed |= {i for i, old in enumerate(before) if after[i] is not old}
        return keras.tree.flatten(self.outputs), after

    def state(self, others: Sequence[Any]) -> list[Any]:
        """Those of the others that calls change."""
        return [others[i] for i in sorted(self.changed)]

    def with_state(self, others: Sequence[Tensor], state: Sequence[Tensor]) -> list[Tensor]:
        """The others, with `state` for those that calls change."""
        values = list(others)
        for i, value in zip(sorted(self.changed), state, strict=True):
            values[i] = value
        return values

    def _check(self, scope: Any, rows: int | None, own: set[int]) -> None:
        name = self.layer.name
        if scope.losses:
            raise ValueError(
                f"The layer {name!r} adds a loss of its activations (`add_loss` or an "
                "`activity_regularizer`), and what that is for a batch cannot be told from its "
                "chunks. Add it outside of the Chunked layer."
            )
        if not set(scope.state_mapping) <= own:
            raise ValueError(
                f"The layer {name!r} changes variables that are not its own when it is called, "
                "such as the global seed of `keras.random`. Give it a "
                "`keras.random.SeedGenerator` as an attribute."
            )
        for y in keras.tree.flatten(self.outputs):
            if not len(y.shape) or (y.shape[0] != rows and None not in (y.shape[0], rows)):
                raise ValueError(
                    f"The layer {name!r} must return a row for each row of its inputs to run in "
                    f"chunks. Received outputs of shape {tuple(y.shape)} for {rows} rows."
                )


def _backend() -> Any:
    return backends.module(__name__)
