"""Bases for losses of one's own, as there: `compute_loss` returns elements, a reducer one number.

A subclass that was written for the peer runs on PyTorch as it is, and on other backends if it calls
`keras.ops`. A new loss is better a `kinfold.losses.PairLoss`, which is streamed.
"""

from typing import Any

import keras
from keras import ops

from kinfold.compat.pytorch_metric_learning import distances, elements, reducers, tuples
from kinfold.compat.pytorch_metric_learning.calls import Module


class _Base(Module):
    """Holds the distance and the reducer."""

    def __init__(
        self, *, distance: Any = None, reducer: Any = None, collect_stats: bool = False
    ) -> None:
        super().__init__()
        self.collect_stats = bool(collect_stats)
        self.distance = distances.found(distance or self.get_default_distance())
        self.reducer = reducers.found(reducer or self.get_default_reducer())

    def get_default_distance(self) -> Any:
        return distances.LpDistance()

    def get_default_reducer(self) -> Any:
        return reducers.MeanReducer()


class EmbeddingRegularizerMixin:
    """Adds a regularizer of the embeddings to a loss of one's own; stands before it.

    Args:
        embedding_regularizer: called on the embeddings [batch, d]; its value, times
            `embedding_reg_weight`, becomes a part of the loss.
    """

    def __init__(
        self, embedding_regularizer: Any = None, embedding_reg_weight: float = 1, **shared: Any
    ) -> None:
        super().__init__(**shared)
        self.embedding_regularizer = embedding_regularizer
        self.embedding_reg_weight = embedding_reg_weight

    def add_embedding_regularization_to_loss_dict(self, loss_dict: Any, embeddings: Any) -> None:
        if self.embedding_regularizer is not None:
            value = self.embedding_regularizer(embeddings) * self.embedding_reg_weight
            reg = {"losses": value, "indices": None, "reduction_type": "already_reduced"}
            loss_dict["embedding_reg_loss"] = reg


class BaseMetricLossFunction(EmbeddingRegularizerMixin, _Base):
    """Subclass it with `compute_loss`.

    Args:
        distance: one of `distances`; None for `get_default_distance()`.
        reducer: one of `reducers`; None for `get_default_reducer()`.
        embedding_regularizer, embedding_reg_weight: see `EmbeddingRegularizerMixin`.
    """

    def compute_loss(
        self, embeddings: Any, labels: Any, indices_tuple: Any, ref_emb: Any, ref_labels: Any
    ) -> dict[str, dict[str, Any]]:
        """The parts of the loss, whose sum it is.

        Returns:
            {part: {"losses", "indices", "reduction_type"}}. The type is "element" for losses [k] of
            anchors at `indices` [k], "pos_pair", "neg_pair" or "triplet" for tuples of indices, or
            "already_reduced" for a number. "divisor" is for DivisorReducer.
        """
        raise NotImplementedError

    def forward(
        self,
        embeddings: Any,
        labels: Any = None,
        indices_tuple: Any = None,
        ref_emb: Any = None,
        ref_labels: Any = None,
    ) -> Any:
        """Compute the loss; see `losses.Loss`."""
        embeddings, ref_emb = (_tensor(given) for given in (embeddings, ref_emb))
        labels, ref_labels = (_tensor(given) for given in (labels, ref_labels))
        if ref_emb is None:
            ref_emb, ref_labels = embeddings, labels
        for rows, ids, name in (
            (embeddings, labels, "labels"),
            (ref_emb, ref_labels, "ref_labels"),
        ):
            if ids is not None and tuple(ids.shape) != (rows.shape[0],):
                raise ValueError(
                    f"`{name}` must be one for each embedding. Received shapes {tuple(ids.shape)} "
                    f"and {tuple(rows.shape)}."
                )
        parts = self.compute_loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        self.add_embedding_regularization_to_loss_dict(parts, embeddings)
        return self.reducer(parts, embeddings, labels)

    if Module is object:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.forward(*args, **kwargs)

    def zero_loss(self) -> dict[str, Any]:
        return {"losses": 0, "indices": None, "reduction_type": "already_reduced"}

    def zero_losses(self) -> dict[str, dict[str, Any]]:
        """What `compute_loss` returns where there is nothing to compare."""
        return {name: self.zero_loss() for name in self._sub_loss_names()}

    def _sub_loss_names(self) -> list[str]:
        return ["loss"]


class GenericPairLoss(BaseMetricLossFunction):
    """A loss of pairs: subclass it with `_compute_loss`, of a matrix or of lists.

    Args:
        mat_based_loss: whether it is `_compute_loss(mat, pos_mask, neg_mask)`, matrices [n, m]; or
            `_compute_loss(pos_pairs, neg_pairs, indices_tuple)`, lists of distances.
    """

    def __init__(self, mat_based_loss: bool, **shared: Any) -> None:
        super().__init__(**shared)
        self.of_matrix = bool(mat_based_loss)

    def compute_loss(
        self, embeddings: Any, labels: Any, indices_tuple: Any, ref_emb: Any, ref_labels: Any
    ) -> dict[str, dict[str, Any]]:
        mat = self.distance(embeddings, ref_emb)
        n, m = mat.shape
        if indices_tuple is None:
            pairs = tuples.all_pairs(labels, ref_labels)
        else:
            pairs = tuples.pairs_of(tuples.checked(indices_tuple, n, m))
        if all(len(part) <= 1 for part in pairs):
            return self.zero_losses()
        at = [ops.convert_to_tensor(part, dtype="int32") for part in pairs]
        if not self.of_matrix:
            flat = ops.reshape(mat, (-1,))
            near, far = (ops.take(flat, a * m + b, axis=0) for a, b in (at[:2], at[2:]))
            return self._compute_loss(near, far, tuple(at))
        rows, columns = elements.numbers(mat), elements.numbers(ops.transpose(mat))
        dtype = keras.backend.standardize_dtype(mat.dtype)
        both = elements.times(pairs, rows, columns, dtype)
        return self._compute_loss(mat, *(ops.cast(often > 0, dtype) for often in both))

    def _compute_loss(self, *of_pairs: Any) -> dict[str, dict[str, Any]]:
        raise NotImplementedError


class WeightRegularizerMixin:
    """For a loss of one's own with weights: stands before `BaseMetricLossFunction`.

    Args:
        weight_init_func: kept as an attribute, for the weights that the loss makes.
        weight_regularizer: called on the weights by `add_weight_regularization_to_loss_dict`; its
            value, times `weight_reg_weight`, becomes a part of the loss.
    """

    def __init__(
        self,
        weight_init_func: Any = None,
        weight_regularizer: Any = None,
        weight_reg_weight: float = 1,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.weight_init_func = weight_init_func or self.get_default_weight_init_func()
        self.weight_regularizer, self.weight_reg_weight = weight_regularizer, weight_reg_weight

    def get_default_weight_init_func(self) -> Any:
        """Fills a tensor of PyTorch in place; elsewhere it is an initializer of Keras."""
        if Module is object:
            return keras.initializers.RandomNormal(stddev=1.0)
        import torch

        return torch.nn.init.normal_

    def add_weight_regularization_to_loss_dict(
        self, loss_dict: dict[str, Any], weights: Any
    ) -> None:
        if self.weight_regularizer is not None:
            value = self.weight_regularizer(weights) * self.weight_reg_weight
            reg = {"losses": value, "indices": None, "reduction_type": "already_reduced"}
            loss_dict["weight_reg_loss"] = reg


class BaseLossWrapper(Module):
    """Subclass it with `supported_losses`, the names of the losses that it takes."""

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.check_loss_support(type(loss).__name__)

    @staticmethod
    def supported_losses() -> list[str]:
        raise NotImplementedError

    @classmethod
    def check_loss_support(cls, loss_name: str) -> None:
        if loss_name not in cls.supported_losses():
            raise TypeError(
                f"{cls.__name__} is for {', '.join(cls.supported_losses())}. Received: {loss_name}."
            )


def _tensor(given: Any) -> Any:
    return given if given is None else ops.convert_to_tensor(given)
