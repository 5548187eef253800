"""The losses of pytorch-metric-learning that have weights: a prototype of each class."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold import losses
from kinfold.compat.pytorch_metric_learning import distances, elements, reducers, tuples
from kinfold.compat.pytorch_metric_learning.calls import Call, Module, regularized
from kinfold.core.checks import Tensor


class WithWeights(Module):
    """A loss of ours with prototypes, called as there: `loss(embeddings, labels)`.

    On PyTorch it is a module, whose parameter an optimizer trains; elsewhere give
    `trainable_variables` to one. The prototypes are [classes, d], or [classes, centers, d].

    Args:
        loss: the loss.
        reducer: what reduces the losses of the examples; None for the mean.
        weight_regularizer: called on the prototypes, one in a row; its value, times
            `weight_reg_weight`, is added.
        embedding_regularizer: the same of the embeddings.
    """

    by_anchors = False  # whether an example's weight counts where it is an anchor alone

    def __init__(
        self,
        loss: losses.PrototypeLoss,
        *,
        reducer: Any = None,
        weight_regularizer: Any = None,
        weight_reg_weight: float = 1,
        embedding_regularizer: Any = None,
        embedding_reg_weight: float = 1,
        collect_stats: bool = False,
    ) -> None:
        super().__init__()
        distances.refuse_stats(collect_stats)
        self.loss = loss
        self.reducer = None if reducer is None else reducers.found(reducer)
        self.weight_regularizer, self.weight_reg_weight = weight_regularizer, weight_reg_weight
        self.embedding_regularizer = embedding_regularizer
        self.embedding_reg_weight = embedding_reg_weight
        (variable,) = loss.trainable_variables
        if Module is not object:
            self.prototypes = variable.value

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The prototypes, for an optimizer of Keras."""
        return self.loss.trainable_variables

    def forward(
        self,
        embeddings: Any,
        labels: Any,
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
        call = Call(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        if call.given:
            raise ValueError(f"{type(self).__name__} takes no ref_emb and ref_labels.")
        weights = None
        if call.chosen is not None:
            found = tuples.weights_of(call.chosen, call.x.shape[0], self.by_anchors)
            found = self.of_miner(found)
            dtype = keras.backend.standardize_dtype(call.x.dtype)
            weights = ops.convert_to_tensor(found, dtype=dtype)
        total = self.total(call, weights)
        if isinstance(self.reducer, reducers.DoNothingReducer):
            return total
        prototypes = ops.reshape(self.loss.trainable_variables[0].value, (-1, call.x.shape[1]))
        total = regularized(total, self.weight_regularizer, self.weight_reg_weight, prototypes)
        return regularized(total, self.embedding_regularizer, self.embedding_reg_weight, embeddings)

    if Module is object:
        __call__ = forward

    def of_miner(self, weights: np.ndarray) -> np.ndarray:
        """What ours weighs an example by, where the peer weighs it by these."""
        return weights

    def total(self, call: Call, weights: Tensor | None) -> Any:
        """The reduced loss of the examples, times weights [n]."""
        if self.reducer is None:
            return self.loss(call.labels, call.x, weights)
        loss = self.loss.call(call.labels, call.x)
        loss = loss if weights is None else loss * weights
        if isinstance(self.reducer, reducers.DoNothingReducer):
            where = ops.arange(call.x.shape[0], dtype="int32")
            return {"loss": {"losses": loss, "indices": where, "reduction_type": "element"}}
        reducer = reducers.of_part(self.reducer, "loss").of_anchors()
        of_classes = reducers.weights_of(reducer, call.labels, loss)
        return elements.of_list(loss, of_classes, reducer)


class ArcFaceLoss(WithWeights):
    """ArcFace; `margin` is in degrees. See `kinfold.losses.ArcFaceLoss`."""

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 28.6,
        scale: float = 64,
        **shared: Any,
    ) -> None:
        angle = math.radians(margin)
        super().__init__(losses.ArcFaceLoss(num_classes, embedding_size, angle, scale), **shared)


class SubCenterArcFaceLoss(WithWeights):
    """ArcFace with several centers of each class, of which the nearest counts."""

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 28.6,
        scale: float = 64,
        sub_centers: int = 3,
        **shared: Any,
    ) -> None:
        size = num_classes, embedding_size, math.radians(margin), scale
        super().__init__(losses.ArcFaceLoss(*size, sub_centers=sub_centers), **shared)


class CosFaceLoss(WithWeights):
    """CosFace; see `kinfold.losses.CosFaceLoss`."""

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 0.35,
        scale: float = 64,
        **shared: Any,
    ) -> None:
        super().__init__(losses.CosFaceLoss(num_classes, embedding_size, margin, scale), **shared)


class NormalizedSoftmaxLoss(WithWeights):
    """Softmax of cosines; see `kinfold.losses.NormalizedSoftmaxLoss`."""

    def __init__(
        self, num_classes: int, embedding_size: int, temperature: float = 0.05, **shared: Any
    ) -> None:
        loss = losses.NormalizedSoftmaxLoss(num_classes, embedding_size, temperature)
        super().__init__(loss, **shared)


class SphereFaceLoss(WithWeights):
    """SphereFace; see `kinfold.losses.SphereFaceLoss`."""

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: int = 4,
        scale: float = 1,
        **shared: Any,
    ) -> None:
        loss = losses.SphereFaceLoss(num_classes, embedding_size, margin, scale)
        super().__init__(loss, **shared)


class LargeMarginSoftmaxLoss(WithWeights):
    """Large-margin softmax; see `kinfold.losses.LargeMarginSoftmaxLoss`."""

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: int = 4,
        scale: float = 1,
        **shared: Any,
    ) -> None:
        loss = losses.LargeMarginSoftmaxLoss(num_classes, embedding_size, margin, scale)
        super().__init__(loss, **shared)


class P2SGradLoss(WithWeights):
    """P2SGrad; see `kinfold.losses.P2SGradLoss`."""

    def __init__(self, descriptors_dim: int, num_classes: int, **shared: Any) -> None:
        super().__init__(losses.P2SGradLoss(num_classes, descriptors_dim), **shared)


class ProxyNCALoss(WithWeights):
    """Neighbourhood components analysis with a proxy of each class."""

    by_anchors = True

    def __init__(
        self, num_classes: int, embedding_size: int, softmax_scale: float = 1, **shared: Any
    ) -> None:
        loss = losses.ProxyNCALoss(num_classes, embedding_size, 1 / softmax_scale)
        super().__init__(loss, **shared)


class ProxyAnchorLoss(WithWeights):
    """Proxy anchor; see `kinfold.losses.ProxyAnchorLoss`. It takes its own reducer."""

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 0.1,
        alpha: float = 32,
        **shared: Any,
    ) -> None:
        if shared.get("reducer") is not None:
            raise NotImplementedError(
                "ProxyAnchorLoss has one number a class, and divides by two of their numbers: it "
                "takes no other reducer."
            )
        loss = losses.ProxyAnchorLoss(num_classes, embedding_size, margin, alpha)
        super().__init__(loss, **shared)

    def of_miner(self, weights: np.ndarray) -> np.ndarray:
        return np.exp(weights - 1)  # there they are added to the exponent


class SoftTripleLoss(WithWeights):
    """SoftTriple; see `kinfold.losses.SoftTripleLoss`. Centers are not pulled together here."""

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        centers_per_class: int = 10,
        la: float = 20,
        gamma: float = 0.1,
        margin: float = 0.01,
        **shared: Any,
    ) -> None:
        loss = losses.SoftTripleLoss(
            num_classes,
            embedding_size,
            centers_per_class=centers_per_class,
            scale=la,
            gamma=gamma,
            margin=margin,
            regularization=0.0,
        )
        super().__init__(loss, **shared)
