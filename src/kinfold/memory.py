"""CrossBatchMemory: a loss whose references are those of earlier batches too."""

from typing import Any

import keras
from keras import ops

from kinfold import distributed
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import transformed, unit_rows
from kinfold.losses.base import PairLoss
from kinfold.losses.trainable import current
from kinfold.streaming import Part, Problem


@keras.saving.register_keras_serializable("kinfold")
class CrossBatchMemory(keras.layers.Layer):
    """A loss over the pairs of a batch with itself and with the embeddings of earlier batches.

    The references of an anchor are the current batch, with gradient, and then what the memory
    holds, without: the last `size` examples of the batches before. Then the batch is written over
    the oldest. Slots that are still empty are left out by their number, whatever numbers they hold.

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
        loss = check_loss(loss)
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
            aggregation="only_first_replica",  # all replicas write the same
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
        y, x = self._checked(y_true, y_pred)
        value = self.loss(y, x, sample_weight, memory=self._part())
        x = ops.stop_gradient(unit_rows(x) if self.loss.normalize else x)
        if ranks := distributed.ranks(self.loss, x):  # each holds the same memory, of all rows
            y, x = ranks.meet({}, x)[0].each(y, x)
        self._remember(y, x)
        return value

    def problem(self, y_true: Any, y_pred: Any) -> Problem:
        """What a batch is compared with, the memory among it; see `kinfold.streaming.explain`."""
        memory = self._part() if self.size else None
        return self.loss.problem(*self._checked(y_true, y_pred), memory=memory)

    def _checked(self, y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
        y = checks.labels(y_true, "y_true")
        x = checks.embeddings(y_pred, "y_pred", self.loss.dtype)
        checks.size(x, self.embedding_size, "y_pred", "embedding_size")
        return y, x

    def _part(self) -> Part:
        """What is remembered, as references without gradient."""
        old, old_y = current(self.embeddings), current(self.labels)
        filled = current(self.filled)
        present = ops.arange(self.size, dtype=filled.dtype) < filled
        present = ops.logical_and(present, current(self.calls) >= self.warmup)
        return Part(old, old_y, present, offset=None, constant=True)

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
    """Return `loss`, or what it says that it is as one, if it compares a batch with references."""
    if hasattr(loss, "as_pair_loss"):
        loss = loss.as_pair_loss()
    if not isinstance(loss, PairLoss):
        raise TypeError(f"`loss` must be a PairLoss. Received: loss={loss!r}.")
    if not loss.takes_references:
        raise TypeError(
            f"{type(loss).__name__} takes no references, and so no memory. Use NTXentLoss."
        )
    return loss


def _write(variable: keras.Variable, slots: Tensor, rows: Tensor) -> None:
    """Put rows into their slots, in place where the backend can."""
    value: Any = variable.value
    if hasattr(value, "scatter_nd_update") and not hasattr(value, "values"):  # of TensorFlow
        value.scatter_nd_update(ops.expand_dims(slots, 1), rows)
    elif hasattr(value, "index_copy_") and id(value) == id(getattr(variable, "_value", None)):
        if transformed():
            raise NotImplementedError(
                "A CrossBatchMemory writes down what it sees, which the transforms of torch.func "
                "do not allow. Call `stateless_call`, which returns the new contents instead."
            )
        value.detach().index_copy_(0, slots.long(), rows)
    else:  # JAX, replicas of TensorFlow, or values of a StatelessScope
        variable.assign(ops.scatter_update(value, ops.expand_dims(slots, 1), rows))
