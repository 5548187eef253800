"""CrossBatchMemory: a loss whose references are those of earlier batches too."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from kinfold import streaming
from kinfold.core import checks, pairs
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32, or_nan, transformed
from kinfold.losses.base import PairLoss
from kinfold.losses.log_sum_exp import LogSumExpLoss
from kinfold.losses.reduction import anchor_weights, reduced
from kinfold.losses.trainable import current
from kinfold.streaming.fused import choice as fused

Before = tuple[Tensor, Tensor, Tensor]  # embeddings [size, d], labels [size], which are present


@keras.saving.register_keras_serializable("kinfold")
class CrossBatchMemory(keras.layers.Layer):
    """A loss over the pairs of a batch with itself and with the embeddings of earlier batches.

    The references of an anchor are the current batch, with gradient, and then what the memory
    holds, without: the last `size` examples of the batches before. Then the batch is written over
    the oldest. Slots that are still empty are left out by their number, whatever their contents.

    Call it where you would call the loss, in PyTorch as it is. In JAX, whose functions have no
    state, call `stateless_call([], state, y, x)`, beginning with `state = [v.value for v in
    memory.non_trainable_variables]`, which returns the loss and the next state. In `fit`,
    `kinfold.EmbeddingModel.compile(..., memory_size=)` does all this.

    Args:
        loss: a `PairLoss`.
        size: how many examples it remembers; 0 for none.
        embedding_size: d, the size of an embedding.
        warmup: calls during which it is filled but compared with nothing, as the embeddings of a
            network that has just begun are soon out of date.
        name: optional name.

    Raises:
        TypeError: the loss is not a `PairLoss`.
        ValueError: a size or warm-up that is not a whole number.

    Reference:
        Wang et al., Cross-Batch Memory for Embedding Learning, CVPR 2020,
        https://arxiv.org/abs/1912.06798

    Example:

    >>> import numpy as np
    >>> from kinfold import CrossBatchMemory
    >>> from kinfold.losses import PairContrastiveLoss
    >>> memory = CrossBatchMemory(PairContrastiveLoss(), size=4, embedding_size=1)
    >>> float(memory(np.array([0, 1]), np.array([[0.0], [3.0]], "float32")))
    0.0
    >>> float(memory(np.array([0, 1]), np.array([[1.0], [3.0]], "float32")))
    0.5
    """

    def __init__(
        self,
        loss: PairLoss,
        size: int,
        embedding_size: int,
        warmup: int = 0,
        name: str | None = None,
    ) -> None:
        check_loss(loss)
        # Embeddings stay in the precision of the loss under any policy.
        stored = "float64" if loss.dtype == "float64" else "float32"
        super().__init__(name=name, dtype=stored, autocast=False)
        # Labels come as they are: converted, large ids would merge.
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self.loss = loss
        self.size = checks.count(size, "size", least=0)
        self.embedding_size = checks.count(embedding_size, "embedding_size")
        self.warmup = checks.count(warmup, "warmup", least=0)
        self.refusal: ValueError | None = None  # of the file that is being loaded
        self.build()

    def build(self, *_: Any) -> None:
        if self.built or not self.size:
            return
        self.embeddings = self._state("embeddings", (self.size, self.embedding_size), self.dtype)
        self.labels = self._state("labels", (self.size,), checks.label_dtype())
        self.position = self._state("position", (), "int")  # where the next example goes
        self.filled = self._state("filled", (), "int")
        self.calls = self._state("calls", (), "int")

    def _state(self, name: str, shape: tuple[int, ...], dtype: str) -> keras.Variable:
        return self.add_weight(
            shape=shape,
            initializer="zeros",
            dtype=dtype,
            trainable=False,
            autocast=False,
            name=name,
        )

    def call(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        """Compute the loss, then remember the batch.

        Args:
            y_true: integer class ids [batch] or [batch, 1].
            y_pred: embeddings [batch, d].
            sample_weight: optional weight of each anchor, a scalar, [batch] or [batch, 1].
            training: False for the loss of the batch alone, which is not remembered.

        Returns:
            A scalar, or [batch] where the reduction of the loss is "none" or None.

        Raises:
            TypeError: labels that are not integers.
            ValueError: wrong ranks or sizes, or counts that differ.
        """
        if not self.size or not training:
            return self.loss(y_true, y_pred, sample_weight)
        y = checks.labels(y_true, "y_true")
        x = checks.embeddings(y_pred, "y_pred", self.loss.dtype)
        checks.size(x, self.embedding_size, "y_pred", "embedding_size")
        old, old_y = current(self.embeddings), current(self.labels)
        filled = current(self.filled)
        present = ops.arange(self.size, dtype=filled.dtype) < filled
        present = ops.logical_and(present, current(self.calls) >= self.warmup)
        compared = self._streamed if _sees_distances_alone(self.loss) else self._joined
        value, x = compared(y, x, sample_weight, (old, old_y, present))
        self._remember(y, ops.stop_gradient(x))
        return value

    def _joined(
        self, y: Tensor, x: Tensor, sample_weight: Any, before: Before
    ) -> tuple[Tensor, Tensor]:
        """By the loss itself, which may look at its references in any way; what to remember."""
        old, old_y, present = before
        value = self.loss(
            y,
            x,
            sample_weight,
            ref_labels=ops.concatenate([y, old_y]),
            ref_embeddings=ops.concatenate([x, ops.cast(old, x.dtype)]),
            ref_mask=ops.concatenate([ops.ones_like(y, dtype="bool"), present]),
        )
        return value, x

    def _streamed(
        self, y: Tensor, x: Tensor, sample_weight: Any, before: Before
    ) -> tuple[Tensor, Tensor]:
        """By the loss's function of distances: the memory is neither copied nor differentiated."""
        loss = self.loss
        fused.not_held(loss, "they take no memory of earlier batches.")
        x, r, anchors, references = loss._pairs(y, x, None, None)
        weights = anchor_weights(sample_weight, like=at_least_float32(x[:, 0]))
        squares = loss.distance.squares(at_least_float32(before[0]))
        beside = before if squares is None else (*before, squares)
        run, options = (_Block(loss), x, r), {**loss._streaming(x), "beside": beside}
        if loss.reduction in (None, "none"):
            rows, _ = streaming.per_anchor(*run, anchors, references, **options)
            return ops.cast(or_nan(rows * weights, x), loss.dtype), x
        total, valid = streaming.weighted_sum(*run, weights, anchors, references, **options)
        value = or_nan(reduced(total, loss.counted(valid), weights, loss.reduction), x)
        return ops.cast(value, loss.dtype), x

    def _remember(self, y: Tensor, x: Tensor) -> None:
        """Write the batch, or its last examples, over the oldest.

        Rows that are not finite are left out: an overflow, which a step under loss scaling
        survives, would spoil every later step. Shapes stay: what is left over of the batch writes
        what is there already.
        """
        y = ops.cast(y[-self.size :], self.labels.dtype)
        x = ops.cast(x[-self.size :], self.embeddings.dtype)
        position, filled = current(self.position), current(self.filled)
        turn = ops.arange(ops.shape(y)[0], dtype=position.dtype)
        finite = ops.all(ops.isfinite(x), axis=1)
        order = ops.argsort(ops.where(finite, turn, turn + self.size))
        n = ops.sum(ops.cast(finite, position.dtype))
        slots = ops.mod(position + turn, self.size)
        for variable, rows in ((self.embeddings, x), (self.labels, y)):
            rows, old = ops.take(rows, order, axis=0), ops.take(current(variable), slots, axis=0)
            new = ops.reshape(turn < n, (-1, *(1 for _ in variable.shape[1:])))
            _write(variable, slots, ops.where(new, rows, old))
        self.position.assign(ops.mod(position + n, self.size))
        self.filled.assign(ops.minimum(filled + n, self.size))
        self.calls.assign(ops.minimum(current(self.calls), self.warmup) + 1)

    def load_own_variables(self, store: Any) -> None:
        """Load the contents; weights saved without a memory leave it empty."""
        if not list(store.keys()):
            if self.refusal:
                raise self.refusal  # Keras tries every path to a layer, and takes the last for all
            for variable in self.variables:
                variable.assign(ops.zeros(variable.shape, variable.dtype))
            return
        embeddings = next(i for i, v in enumerate(self.variables) if v is self.embeddings)
        shape = tuple(store[str(embeddings)].shape)
        if shape != (self.size, self.embedding_size):
            self.refusal = ValueError(
                f"The file holds a memory of {shape[0]} embeddings of size {shape[1]}, and this "
                f"one is of {self.size}, of size {self.embedding_size}. Make it of the same size, "
                "or load a file without a memory."
            )
            raise self.refusal
        super().load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        return {
            "loss": keras.saving.serialize_keras_object(self.loss),
            "size": self.size,
            "embedding_size": self.embedding_size,
            "warmup": self.warmup,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "CrossBatchMemory":
        loss = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**{**config, "loss": loss})


def check_loss(loss: Any) -> PairLoss:
    """Return `loss`, one that compares a batch with references."""
    if not isinstance(loss, PairLoss):
        raise TypeError(f"`loss` must be a PairLoss. Received: loss={loss!r}.")
    if not loss.takes_references:
        raise TypeError(
            f"{type(loss).__name__} takes no references, and so no memory. Use NTXentLoss."
        )
    return loss


@dataclass(frozen=True)
class _Block:
    """A loss's block, with the memory's distances beside those within the batch."""

    loss: PairLoss

    def __call__(
        self,
        x: Tensor,
        r: Tensor,
        y: Tensor,
        positions: Tensor,
        ref_y: Tensor,
        old: Tensor,
        old_y: Tensor,
        present: Tensor,
        *squares: Tensor,
    ) -> tuple[Tensor, Tensor]:
        loss = self.loss
        x, r, old = at_least_float32(x), at_least_float32(r), at_least_float32(old)
        here = loss._masks(y, positions, ref_y)
        before = pairs.masks(y, old_y, present, rows=positions, diagonal=True)
        positive, negative = (
            ops.concatenate(parts, axis=1) for parts in zip(here, before, strict=True)
        )
        d = loss.distance(x, r)
        # Give empty slots the distance of a real reference: they never change a row's minimum.
        old_d = ops.where(present, loss.distance.pairwise(x, old, *squares), d[:, :1])
        d = ops.concatenate([d, old_d], axis=1)
        return loss._of_valid(loss.per_anchor(d, positive, negative), positive, negative)


def _sees_distances_alone(loss: PairLoss) -> bool:
    """Whether all that a loss sees of its references is an anchor's distances to them."""
    own = (PairLoss, LogSumExpLoss)
    hooks = ("__call__", "_pairs", "_rows", "_weighted_sum", "_faster", "_block", "of_embeddings")
    return all(any(getattr(type(loss), h) is getattr(base, h) for base in own) for h in hooks)


def _write(variable: keras.Variable, slots: Tensor, rows: Tensor) -> None:
    """Put rows into their slots, in place where the backend can."""
    value: Any = variable.value
    if hasattr(value, "scatter_nd_update"):  # of TensorFlow
        value.scatter_nd_update(ops.expand_dims(slots, 1), rows)
    elif hasattr(value, "index_copy_") and id(value) == id(getattr(variable, "_value", None)):
        if transformed():
            raise NotImplementedError(
                "A CrossBatchMemory writes down what it sees, which the transforms of torch.func "
                "do not allow. Call `stateless_call`, which returns the new contents instead."
            )
        value.detach().index_copy_(0, slots.long(), rows)
    else:  # JAX, or values that stand for the variable's in a StatelessScope
        variable.assign(ops.scatter_update(value, ops.expand_dims(slots, 1), rows))
