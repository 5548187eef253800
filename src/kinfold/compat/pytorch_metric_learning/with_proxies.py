"""The losses of pytorch-metric-learning with proxies: one of each class, or several."""

import math
import random
from typing import Any

import numpy as np
from keras import ops

from kinfold import losses
from kinfold.compat.pytorch_metric_learning import distances
from kinfold.compat.pytorch_metric_learning.calls import Module
from kinfold.compat.pytorch_metric_learning.errors import WrongArgumentError
from kinfold.compat.pytorch_metric_learning.weights import WithWeights
from kinfold.core.checks import Tensor


class ProxyNCALoss(WithWeights):
    """Neighbourhood components analysis with a proxy of each class."""

    by_anchors = True
    weights_name, rows_are_classes = "proxies", True
    usual_distance = distances.LpDistance(power=2)

    def __init__(
        self, num_classes: int, embedding_size: int, softmax_scale: float = 1, **shared: Any
    ) -> None:
        loss = losses.ProxyNCALoss(num_classes, embedding_size, 1 / softmax_scale)
        super().__init__(loss, **shared)

    def logits(self, x: Tensor, cosine: Tensor) -> Tensor:
        return self.distance.pairwise(x, ops.cast(self.prototypes, x.dtype))  # larger is further


class ProxyAnchorLoss(WithWeights):
    """Proxy anchor; see `kinfold.losses.ProxyAnchorLoss`. It takes its own reducer."""

    weights_name, rows_are_classes = "proxies", True

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

    weights_name = "fc"

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
        loss: Any
        if centers_per_class == 1:  # a softmax of cosines with a margin
            loss = losses.CosFaceLoss(num_classes, embedding_size, margin, la)
            super().__init__(loss, **shared)
            return
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
        self.gamma = gamma

    def logits(self, x: Tensor, cosine: Tensor) -> Tensor:
        if len(cosine.shape) == 2:  # of one center
            return cosine
        return ops.sum(ops.softmax(cosine / self.gamma, axis=2) * cosine, axis=2)


class ManifoldLoss(WithWeights):
    """Manifold similarity loss; see `kinfold.losses.ManifoldLoss`.

    A call takes no labels, but in `indices_tuple` the proxy of each example [batch]; by default
    they are drawn at random, each proxy at least once, by `keras.utils.set_random_seed`.

    Args:
        l: dimensions of the embeddings.
        K: number of proxies.
        lambdaC: weight of the context loss; infinite for the context loss alone.
        alpha: how likely a walk goes on.
        margin: by how much the own proxy must be closer.
    """

    weights_name, rows_are_classes = "proxies", True

    def __init__(
        self,
        l: int,  # noqa: E741
        K: int = 50,
        lambdaC: float = 1.0,
        alpha: float = 0.8,
        margin: float = 5e-4,
        **shared: Any,
    ) -> None:
        if shared.get("reducer") is not None:
            raise NotImplementedError("ManifoldLoss is one number by itself, and takes no reducer.")
        alone = math.isinf(lambdaC)
        loss = losses.ManifoldLoss(
            K, l, 1.0 if alone else lambdaC, 0.0 if alone else 1.0, alpha, margin
        )
        super().__init__(loss, **shared)

    def forward(
        self,
        embeddings: Any,
        labels: Any = None,
        indices_tuple: Any = None,
        ref_emb: Any = None,
        ref_labels: Any = None,
    ) -> Any:
        """Compute the loss of the embeddings [batch, l] and the proxies `indices_tuple` [batch]."""
        if not (labels is None and ref_emb is None and ref_labels is None):
            raise ValueError("ManifoldLoss takes no labels, ref_emb and ref_labels.")
        if embeddings.shape[1] != self.loss.embedding_size:
            raise WrongArgumentError(
                f"`embeddings` must have l={self.loss.embedding_size} dimensions. Received "
                f"{embeddings.shape[1]}."
            )
        if indices_tuple is None:
            n, k = len(embeddings), self.loss.num_classes
            rng = np.random.default_rng(random.getrandbits(63))
            more = rng.integers(0, k, max(n - k, 0))
            indices_tuple = rng.permutation(np.concatenate([np.arange(min(n, k)), more]))
        return super().forward(embeddings, indices_tuple)

    if Module is object:
        __call__ = forward
