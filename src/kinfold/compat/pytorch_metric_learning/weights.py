"""What the losses of pytorch-metric-learning with weights share."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold import losses
from kinfold.compat.pytorch_metric_learning import distances, reducers, reducing, tuples
from kinfold.compat.pytorch_metric_learning.calls import Call, Module, regularized
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.losses.trainable import current


class WithWeights(Module):
    """A loss of ours with prototypes, called as there: `loss(embeddings, labels)`.

    Its weights have the peer's name and shape. On PyTorch they are a parameter, so the peer's
    `state_dict` fits; elsewhere they are a variable of Keras, one of `trainable_variables`.

    Args:
        loss: the loss.
        distance: the peer's own, or None.
        reducer: what reduces the losses of the examples; None for the mean.
        weight_init_func: an initializer of Keras; on PyTorch also a function that fills a tensor
            in place. None for a normal distribution.
        weight_regularizer: called on the prototypes, one in a row; its value, times
            `weight_reg_weight`, is added.
        embedding_regularizer: the same of the embeddings.
    """

    by_anchors = False  # whether an example's weight counts where it is an anchor alone
    weights_name = "W"
    rows_are_classes = False  # whether the weights are [classes, d] or [d, classes]
    usual_distance: distances.BaseDistance = distances.CosineSimilarity()

    def __init__(
        self,
        loss: losses.PrototypeLoss,
        *,
        distance: Any = None,
        reducer: Any = None,
        weight_init_func: Any = None,
        weight_regularizer: Any = None,
        weight_reg_weight: float = 1,
        embedding_regularizer: Any = None,
        embedding_reg_weight: float = 1,
        collect_stats: bool = False,
    ) -> None:
        super().__init__()
        self.collect_stats = bool(collect_stats)
        self.distance = self.usual_distance if distance is None else distances.found(distance)
        if not self.takes(self.distance):
            raise NotImplementedError(
                f"{type(self).__name__} compares by {self.usual_distance.name} with its defaults. "
                f"Received: distance={distance!r}."
            )
        self.loss = loss
        self.reducer = None if reducer is None else reducers.found(reducer)
        self.weight_regularizer, self.weight_reg_weight = weight_regularizer, weight_reg_weight
        self.embedding_regularizer = embedding_regularizer
        self.embedding_reg_weight = embedding_reg_weight
        (self._of_loss,) = loss.trainable_variables
        start = ops.reshape(current(self._of_loss), (-1, self._of_loss.shape[-1]))
        start = start if self.rows_are_classes else ops.transpose(start)
        self._variable = keras.Variable(
            ops.convert_to_numpy(self.first_weights(start)), name=self.weights_name
        )
        own = self._variable if Module is object else self._variable.value
        setattr(self, self.weights_name, own)
        if weight_init_func is not None:
            _fill(self._variable, weight_init_func)

    def takes(self, distance: distances.BaseDistance) -> bool:
        """Whether the loss is written for a distance."""
        own = self.usual_distance
        same = ("normalize_embeddings", "p", "power")
        return type(distance) is type(own) and all(
            getattr(distance, name) == getattr(own, name) for name in same
        )

    def first_weights(self, weights: Tensor) -> Tensor:
        """What the weights begin with, from normal ones in the peer's shape."""
        return weights

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The weights, for an optimizer of Keras."""
        return [self._variable]

    @property
    def prototypes(self) -> Tensor:
        """The weights as [classes, d], or [classes, centers, d]."""
        own = getattr(self, self.weights_name)
        rows = current(own) if Module is object else own
        rows = rows if self.rows_are_classes else ops.transpose(rows)
        return ops.reshape(rows, self._of_loss.shape)

    def forward(
        self,
        embeddings: Any,
        labels: Any = None,
        indices_tuple: Any = None,
        ref_emb: Any = None,
        ref_labels: Any = None,
    ) -> Any:
        """Compute the loss.

        Args:
            embeddings: [batch, d].
            labels: integer class ids [batch], from 0.
            indices_tuple: what a miner chose; how often an example is in it is its weight.
            ref_emb, ref_labels: None; these losses compare with their prototypes.

        Returns:
            A scalar of the backend's tensors.
        """
        if labels is None:
            raise ValueError(f"{type(self).__name__} needs `labels`.")
        call = Call(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        if call.given:
            raise ValueError(f"{type(self).__name__} takes no ref_emb and ref_labels.")
        weights = None
        if call.chosen is not None:
            found = tuples.weights_of(call.chosen, call.x.shape[0], self.by_anchors)
            found = self.of_miner(found)
            dtype = keras.backend.standardize_dtype(call.x.dtype)
            weights = ops.convert_to_tensor(found, dtype=dtype)
        if self.collect_stats:
            self.__dict__.update(self.statistics(call))
        prototypes = self.compared()
        rows = ops.reshape(prototypes, (-1, call.x.shape[1]))
        self.distance.record(call.x, rows)
        with keras.StatelessScope(state_mapping=[(self._of_loss, prototypes)]):
            total = self.total(call, weights)
        if isinstance(self.reducer, reducers.DoNothingReducer):
            return total
        total = regularized(total, self.weight_regularizer, self.weight_reg_weight, rows)
        total = regularized(
            total, self.embedding_regularizer, self.embedding_reg_weight, embeddings
        )
        return call.as_given(total)

    if Module is object:
        __call__ = forward

    def compared(self) -> Tensor:
        """What a call compares with: [classes, d], or [classes, centers, d]."""
        return self.prototypes

    def get_logits(self, embeddings: Any) -> Tensor:
        """The logits of the examples [batch, d] without a margin: [batch, classes]."""
        x = checks.embeddings(embeddings, "embeddings", checks.compute_dtype(embeddings))
        checks.size(x, self.loss.embedding_size, "embeddings", "embedding_size")
        prototypes = ops.cast(self.prototypes, x.dtype)
        return self.logits(x, self._cosine(x, prototypes))

    def _cosine(self, x: Tensor, prototypes: Tensor) -> Tensor:
        """Of each example and each prototype: [n, classes], or [n, classes, centers]."""
        by_column = ops.transpose(ops.reshape(prototypes, (-1, x.shape[1])))
        cosine = _unit(x, 1) @ _unit(by_column, 0)
        return ops.reshape(cosine, (x.shape[0], *prototypes.shape[:-1]))

    def logits(self, x: Tensor, cosine: Tensor) -> Tensor:
        """The logits of examples [n, d] by their cosines [n, classes] or [n, classes, centers]."""
        return cosine

    def statistics(self, call: Call) -> dict[str, float]:
        """What the loss itself keeps of a call with `collect_stats`, as attributes."""
        return {}

    def of_miner(self, weights: np.ndarray) -> np.ndarray:
        """What ours weighs an example by, where the peer weighs it by these."""
        return weights

    def total(self, call: Call, weights: Tensor | None) -> Any:
        """The reduced loss of the examples, times weights [n]."""
        if self.reducer is None:
            return self.loss(call.labels, call.x, weights)
        loss = self.loss.call(call.labels, call.x)
        loss = loss if weights is None else loss * weights
        reducers.of_part(self.reducer, "loss").record(loss)
        if isinstance(self.reducer, reducers.DoNothingReducer):
            where = ops.arange(call.x.shape[0], dtype="int32")
            return {"loss": {"losses": loss, "indices": where, "reduction_type": "element"}}
        reducer = reducers.of_part(self.reducer, "loss").of_anchors()
        of_classes = reducers.weights_of(reducer, call.labels, loss)
        return reducing.of_list(loss, of_classes, reducer)


def _unit(x: Tensor, axis: int) -> Tensor:
    """x / |x|, rounded as there; 0 stays 0."""
    zero = ops.all(ops.equal(x, 0), axis=axis, keepdims=True)
    return x / ops.norm(ops.where(zero, ops.ones_like(x), x), axis=axis, keepdims=True)


def _fill(variable: keras.Variable, init: Any) -> None:
    """Give a variable its first values, by an initializer or a function that fills a tensor."""
    if isinstance(init, keras.initializers.Initializer):
        variable.assign(init(variable.shape, dtype=variable.dtype))
    elif callable(init) and Module is not object:
        import torch

        with torch.no_grad():
            init(variable.value)
    else:
        raise TypeError(
            "`weight_init_func` must be an initializer of Keras; on PyTorch also a function that "
            f"fills a tensor in place. Received: weight_init_func={init!r}."
        )
