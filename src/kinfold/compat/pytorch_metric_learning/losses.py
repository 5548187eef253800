"""The losses of pytorch-metric-learning: `loss(embeddings, labels, indices_tuple, ...)`.

They are called as there, on tensors of any backend, with the peer's arguments, defaults, default
distances and default reducers, and run streamed over `kinfold.losses`.
"""

from typing import Any

import numpy as np
from keras import ops

from kinfold import losses
from kinfold.compat.pytorch_metric_learning import (
    equations,
    reducers,
    reducing,
    statistics,
    terms,
    tuples,
)
from kinfold.compat.pytorch_metric_learning.calls import Build, Call, Loss, masks
from kinfold.compat.pytorch_metric_learning.distances import (
    CosineSimilarity,
    DotProductSimilarity,
    SNRDistance,
)
from kinfold.compat.pytorch_metric_learning.dynamic_soft_margin import (
    DynamicSoftMarginLoss as DynamicSoftMarginLoss,
)
from kinfold.compat.pytorch_metric_learning.memory import CrossBatchMemory as CrossBatchMemory
from kinfold.compat.pytorch_metric_learning.own import BaseLossWrapper as BaseLossWrapper
from kinfold.compat.pytorch_metric_learning.own import (
    BaseMetricLossFunction as BaseMetricLossFunction,
)
from kinfold.compat.pytorch_metric_learning.own import (
    EmbeddingRegularizerMixin as EmbeddingRegularizerMixin,
)
from kinfold.compat.pytorch_metric_learning.own import GenericPairLoss as GenericPairLoss
from kinfold.compat.pytorch_metric_learning.own import (
    WeightRegularizerMixin as WeightRegularizerMixin,
)
from kinfold.compat.pytorch_metric_learning.summed import AngularLoss as AngularLoss
from kinfold.compat.pytorch_metric_learning.summed import LiftedStructureLoss as LiftedStructureLoss
from kinfold.compat.pytorch_metric_learning.triplets import MarginLoss as MarginLoss
from kinfold.compat.pytorch_metric_learning.triplets import TripletMarginLoss as TripletMarginLoss
from kinfold.compat.pytorch_metric_learning.vicreg import VICRegLoss as VICRegLoss
from kinfold.compat.pytorch_metric_learning.weighted import FastAPLoss as FastAPLoss
from kinfold.compat.pytorch_metric_learning.weighted import NCALoss as NCALoss
from kinfold.compat.pytorch_metric_learning.weighted import SmoothAPLoss as SmoothAPLoss
from kinfold.compat.pytorch_metric_learning.weighted import is_cosine
from kinfold.compat.pytorch_metric_learning.whole import HistogramLoss as HistogramLoss
from kinfold.compat.pytorch_metric_learning.whole import InstanceLoss as InstanceLoss
from kinfold.compat.pytorch_metric_learning.whole import (
    IntraPairVarianceLoss as IntraPairVarianceLoss,
)
from kinfold.compat.pytorch_metric_learning.whole import PNPLoss as PNPLoss
from kinfold.compat.pytorch_metric_learning.whole import RankedListLoss as RankedListLoss
from kinfold.compat.pytorch_metric_learning.whole import (
    ThresholdConsistentMarginLoss as ThresholdConsistentMarginLoss,
)
from kinfold.compat.pytorch_metric_learning.with_proxies import ManifoldLoss as ManifoldLoss
from kinfold.compat.pytorch_metric_learning.with_proxies import ProxyAnchorLoss as ProxyAnchorLoss
from kinfold.compat.pytorch_metric_learning.with_proxies import ProxyNCALoss as ProxyNCALoss
from kinfold.compat.pytorch_metric_learning.with_proxies import SoftTripleLoss as SoftTripleLoss
from kinfold.compat.pytorch_metric_learning.with_weights import ArcFaceLoss as ArcFaceLoss
from kinfold.compat.pytorch_metric_learning.with_weights import CosFaceLoss as CosFaceLoss
from kinfold.compat.pytorch_metric_learning.with_weights import (
    LargeMarginSoftmaxLoss as LargeMarginSoftmaxLoss,
)
from kinfold.compat.pytorch_metric_learning.with_weights import (
    NormalizedSoftmaxLoss as NormalizedSoftmaxLoss,
)
from kinfold.compat.pytorch_metric_learning.with_weights import P2SGradLoss as P2SGradLoss
from kinfold.compat.pytorch_metric_learning.with_weights import SphereFaceLoss as SphereFaceLoss
from kinfold.compat.pytorch_metric_learning.with_weights import (
    SubCenterArcFaceLoss as SubCenterArcFaceLoss,
)
from kinfold.compat.pytorch_metric_learning.wrappers import MultipleLosses as MultipleLosses
from kinfold.compat.pytorch_metric_learning.wrappers import SelfSupervisedLoss as SelfSupervisedLoss
from kinfold.core.checks import Tensor
from kinfold.core.numerics import log_sum_exp


class CircleLoss(Loss):
    """Circle loss; see `kinfold.losses.CircleLoss` with detached weights."""

    def __init__(self, m: float = 0.4, gamma: float = 80, **shared: Any) -> None:
        super().__init__(
            lambda **k: (losses.CircleLoss(gamma, m, detach_weights=True, **k),),
            {"loss": (equations.circle(m, gamma), False)},
            CosineSimilarity(),
            reducers.AvgNonZeroReducer(),
            only=is_cosine,
            **shared,
        )


class ContrastiveLoss(Loss):
    """Hinges of the Euclidean distance: the mean over those of positives plus that of negatives."""

    def __init__(self, pos_margin: float = 0, neg_margin: float = 1, **shared: Any) -> None:
        super().__init__(
            _hinges(pos_margin, neg_margin, "euclidean"),
            _hinge_parts(pos_margin, neg_margin),
            usual_reducer=reducers.AvgNonZeroReducer(),
            **shared,
        )


class SignalToNoiseRatioContrastiveLoss(Loss):
    """`ContrastiveLoss` with the signal-to-noise distance."""

    def __init__(self, pos_margin: float = 0, neg_margin: float = 1, **shared: Any) -> None:
        super().__init__(
            _hinges(pos_margin, neg_margin, "snr"),
            _hinge_parts(pos_margin, neg_margin),
            SNRDistance(),
            reducers.AvgNonZeroReducer(),
            only=lambda distance: isinstance(distance, SNRDistance),
            **shared,
        )


def _hinges(near: float, far: float, distance: str) -> Build:
    return lambda **k: (
        terms.Hinges(True, float(near), distance=distance, **k),
        terms.Hinges(False, float(far), distance=distance, **k),
    )


def _hinge_parts(near: float, far: float) -> dict[str, tuple[equations.Equation, bool]]:
    return {
        "pos_loss": (equations.near_hinges(near), True),
        "neg_loss": (equations.far_hinges(far), True),
    }


class MultiSimilarityLoss(Loss):
    """Multi-similarity loss of all pairs; `base` is a cosine similarity."""

    def __init__(
        self, alpha: float = 2, beta: float = 50, base: float = 0.5, **shared: Any
    ) -> None:
        super().__init__(
            lambda **k: (terms.MultiSimilarity(alpha, beta, 1.0 - base, **k),),
            {"loss": (equations.multi_similarity(alpha, beta, base), False)},
            CosineSimilarity(),
            **shared,
        )


class SupConLoss(Loss):
    """Supervised contrastive loss; see `kinfold.losses.SupConLoss`."""

    def __init__(self, temperature: float = 0.1, **shared: Any) -> None:
        super().__init__(
            lambda **k: (terms.SupCon(temperature, **k),),
            {"loss": (equations.sup_con(temperature), False)},
            CosineSimilarity(),
            reducers.AvgNonZeroReducer(),
            needs_negatives=True,
            **shared,
        )


class NTXentLoss(Loss):
    """NT-Xent, its mean over positive pairs; exact also where the peer saturates."""

    def __init__(self, temperature: float = 0.07, **shared: Any) -> None:
        super().__init__(
            lambda **k: (terms.NTXent(temperature, **k),),
            {"loss": (equations.nt_xent(temperature), True)},
            CosineSimilarity(),
            **shared,
        )


class TupletMarginLoss(Loss):
    """Tuplet margin loss, its mean over positive pairs; `margin` is in degrees."""

    def __init__(self, margin: float = 5.73, scale: float = 64, **shared: Any) -> None:
        super().__init__(
            lambda **k: (terms.TupletMargin(margin, scale, **k),),
            {"loss": (equations.tuplet_margin(margin, scale), True)},
            CosineSimilarity(),
            only=is_cosine,
            **shared,
        )

    def statistics(self, call: Call) -> dict[str, float]:
        """The mean angles of positive and of negative pairs, in degrees."""
        positive, negative = (mask > 0 for mask in masks(call))
        if not positive.any() or not negative.any():
            return {"avg_pos_angle": 0.0, "avg_neg_angle": 0.0}
        cosine = tuples.numbers(self.distance.pairwise(call.x, call.r))
        return {
            "avg_pos_angle": statistics.degrees(cosine[positive]),
            "avg_neg_angle": statistics.degrees(cosine[negative]),
        }


class GeneralizedLiftedStructureLoss(Loss):
    """Generalised lifted structure loss, its mean over the whole batch."""

    def __init__(self, neg_margin: float = 1, pos_margin: float = 0, **shared: Any) -> None:
        super().__init__(
            lambda **k: (terms.GeneralizedLifted(neg_margin, pos_margin, **k),),
            {"loss": (equations.generalized_lifted(neg_margin, pos_margin), False)},
            **shared,
        )


class NPairsLoss(Loss):
    """N-pairs loss; see `kinfold.losses.NPairsLoss`."""

    needs_labels = True

    def __init__(self, **shared: Any) -> None:
        super().__init__(
            lambda **k: (losses.NPairsLoss(**k),),
            usual_distance=DotProductSimilarity(),
            takes_references=False,
            **shared,
        )

    def general(self, call: Call) -> Tensor:
        loss, anchors = self._of(call)
        reducer = reducers.of_part(self.reducer, "loss").of_anchors()
        weights = self.anchor_weights(call, reducer)
        if weights is not None:
            weights = ops.take(weights, anchors, axis=0)
        return reducing.of_list(loss, weights, reducer)

    def _of(self, call: Call) -> tuple[Tensor, np.ndarray]:
        """The loss of a pair of each class [k], and its anchor: the first pair of the class."""
        if call.chosen is None:
            a, p = np.nonzero(masks(call)[0])
        else:
            a, p, *_ = tuples.pairs_of(call.chosen)
        _, first = np.unique(call.known_labels()[0][a], return_index=True)
        a, p = a[first], p[first]
        mat = self.distance.pairwise(ops.take(call.x, a, axis=0), ops.take(call.x, p, axis=0))
        logit = mat if self.distance.is_inverted else -mat
        if not len(a):
            return ops.sum(call.x) * ops.zeros((0,), call.dtype), a
        return log_sum_exp(logit) - ops.diagonal(logit), a

    def statistics(self, call: Call) -> dict[str, float]:
        """The number of classes that have a pair."""
        return {"num_pairs": len(self._of(call)[1])}

    def lists(self, call: Call) -> dict[str, Any]:
        loss, anchors = self._of(call)
        indices = ops.convert_to_tensor(anchors, dtype="int32")
        return {"loss": {"losses": loss, "indices": indices, "reduction_type": "element"}}
