"""The losses of pytorch-metric-learning that have weights: a prototype of each class."""

import math
from typing import Any

import numpy as np
from keras import ops

from kinfold import losses
from kinfold.compat.pytorch_metric_learning import distances, statistics, tuples
from kinfold.compat.pytorch_metric_learning.calls import Call, Module
from kinfold.compat.pytorch_metric_learning.weights import WithWeights
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import unit_rows
from kinfold.losses.sphere_face import norms


class _Scaled(WithWeights):
    """Logits are cosines, times a scale."""

    def logits(self, x: Tensor, cosine: Tensor) -> Tensor:
        cosine = ops.max(cosine, axis=2) if len(cosine.shape) == 3 else cosine
        return cosine * self.loss.scale

    def statistics(self, call: Call) -> dict[str, float]:
        """The mean angle of the examples to the prototypes of their classes, in degrees."""
        cosine = tuples.numbers(self._cosine(call.x, ops.cast(self.prototypes, call.x.dtype)))
        cosine = cosine.max(axis=2) if cosine.ndim == 3 else cosine
        own = cosine[np.arange(len(cosine)), call.known_labels()[0]]
        return {"avg_angle": statistics.degrees(own)}


class ArcFaceLoss(_Scaled):
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


class SubCenterArcFaceLoss(_Scaled):
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
        self.sub_centers = sub_centers

    def get_outliers(
        self,
        embeddings: Any,
        labels: Any,
        threshold: float = 75,
        return_dominant_centers: bool = True,
    ) -> Any:
        """Find examples far from the center that most examples of their class are nearest to.

        Args:
            embeddings: [batch, d], known numbers.
            labels: integer class ids [batch].
            threshold: the angle in degrees from which an example is an outlier.
            return_dominant_centers: whether the dominant centers are returned too.

        Returns:
            Positions of outliers, integers [k], class by class; and the dominant center of each
            class [d, classes], 0 for a class without examples.
        """
        y = tuples.known(checks.labels(labels, "labels"), "labels").reshape(-1)
        x = tuples.known(embeddings, "embeddings")
        if len(x) != len(y):
            raise ValueError(f"`embeddings` and `labels` differ in number: {len(x)} and {len(y)}.")
        x, centers = x.astype("float64"), tuples.known(self.prototypes, "prototypes")
        shape = self.loss.num_classes, self.sub_centers, x.shape[1]
        centers = centers.reshape(shape).astype("float64")
        dominant, found = np.zeros((shape[0], shape[2])), [np.zeros(0, int)]
        for label in np.unique(y):
            rows = np.flatnonzero(y == label)
            cosine = _unit(x[rows]) @ _unit(centers[label]).T
            most = np.bincount(cosine.argmax(1), minlength=shape[1]).argmax()
            dominant[label] = centers[label, most]
            found.append(rows[cosine[:, most] < math.cos(math.radians(threshold))])
        outliers = ops.convert_to_tensor(np.concatenate(found), dtype="int32")
        if not return_dominant_centers:
            return outliers
        dtype = checks.compute_dtype(embeddings)
        return outliers, ops.convert_to_tensor(dominant.T, dtype=dtype)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


class CosFaceLoss(_Scaled):
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


class _SoftmaxOf(losses.NormalizedSoftmaxLoss):
    """Softmax of how near an example of any norm is to prototypes of unit norm."""

    normalizes_examples = False

    def __init__(self, distance: distances.BaseDistance, *args: Any) -> None:
        super().__init__(*args)
        self.distance = distance

    def similarity(self, x: Tensor, prototypes: Tensor) -> Tensor:
        mat = self.distance.pairwise(x, prototypes)
        return mat if self.distance.is_inverted else -mat


class NormalizedSoftmaxLoss(WithWeights):
    """Softmax of cosines, or of another distance to prototypes of unit norm.

    See `kinfold.losses.NormalizedSoftmaxLoss`.
    """

    usual_distance = distances.DotProductSimilarity()

    def __init__(
        self, num_classes: int, embedding_size: int, temperature: float = 0.05, **shared: Any
    ) -> None:
        size = num_classes, embedding_size, temperature
        distance = shared.get("distance")
        if distance is None:
            loss = losses.NormalizedSoftmaxLoss(*size)
        else:
            loss = _SoftmaxOf(distances.found(distance), *size)
        super().__init__(loss, **shared)
        self.temperature = temperature

    def takes(self, distance: distances.BaseDistance) -> bool:
        return True

    def logits(self, x: Tensor, cosine: Tensor) -> Tensor:
        if isinstance(self.loss, _SoftmaxOf):
            cosine = self.loss.similarity(x, unit_rows(ops.cast(self.prototypes, x.dtype)))
        return cosine / self.temperature


class SphereFaceLoss(_Scaled):
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

    def logits(self, x: Tensor, cosine: Tensor) -> Tensor:
        return super().logits(x, cosine) * norms(x)[:, None]


class LargeMarginSoftmaxLoss(_Scaled):
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

    def logits(self, x: Tensor, cosine: Tensor) -> Tensor:
        lengths = norms(x)[:, None] * norms(ops.cast(self.prototypes, x.dtype))
        return super().logits(x, cosine) * lengths


class _P2SGrad(losses.P2SGradLoss):
    """P2SGrad of prototypes that have unit norm already, and a gradient in all directions."""

    def _block(self, x: Tensor, prototypes: Tensor, y: Tensor, ids: Tensor) -> Any:
        similarity = self.similarity(x, prototypes)
        own = ops.equal(ops.expand_dims(y, 1), ops.expand_dims(ids, 0))
        gap = similarity - ops.cast(own, similarity.dtype)
        return gap * gap, 0.0 * similarity


class P2SGradLoss(WithWeights):
    """P2SGrad; see `kinfold.losses.P2SGradLoss`.

    As there, each call scales the weights to unit norm, and their gradient does not know of it.
    """

    weights_name = "weight"

    def __init__(self, descriptors_dim: int, num_classes: int, **shared: Any) -> None:
        if shared.get("reducer") is not None:
            raise NotImplementedError("P2SGradLoss is one number by itself, and takes no reducer.")
        super().__init__(_P2SGrad(num_classes, descriptors_dim), **shared)

    def forward(
        self, embeddings: Any, labels: Any = None, indices_tuple: Any = None, *refs: Any, **ref: Any
    ) -> Any:
        """Compute the loss of embeddings [batch, d] and class ids [batch]."""
        if indices_tuple is not None:
            raise ValueError("P2SGradLoss takes no indices_tuple.")
        return super().forward(embeddings, labels, None, *refs, **ref)

    if Module is object:
        __call__ = forward

    def first_weights(self, weights: Tensor) -> Tensor:
        return _unit_columns(weights)

    def compared(self) -> Tensor:
        own = getattr(self, self.weights_name)
        if Module is not object:
            own.data = _unit_columns(own.data)
            return self.prototypes
        if checks.is_concrete(self.prototypes):
            own.assign(_unit_columns(ops.transpose(self.prototypes)))
        given = self.prototypes
        return given + ops.stop_gradient(unit_rows(given) - given)


def _unit_columns(weights: Tensor) -> Tensor:
    return ops.transpose(unit_rows(ops.transpose(weights)))
