"""The losses of pytorch-metric-learning that are of the whole batch, or take no other reducer."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold import distributed, losses
from kinfold.compat.pytorch_metric_learning import elements, equations, reducers, terms, tuples
from kinfold.compat.pytorch_metric_learning.calls import Call, Loss
from kinfold.compat.pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from kinfold.compat.pytorch_metric_learning.errors import WrongArgumentError
from kinfold.compat.pytorch_metric_learning.weighted import is_cosine
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import divide
from kinfold.streaming import Problem

_ENDS: tuple[Any, Any] = ("left", "right")


class _Reduced(Loss):
    """A loss that is one number by itself: the peer has no use for a reducer there."""

    by_pairs = False

    def __init__(self, *args: Any, **shared: Any) -> None:
        if shared.get("reducer") is not None:
            raise NotImplementedError(
                f"{type(self).__name__} is one number by itself, and takes no reducer. Received: "
                f"reducer={shared['reducer']!r}."
            )
        super().__init__(*args, only=is_cosine, takes_references=False, **shared)


class PNPLoss(_Reduced):
    """PNP loss; see `kinfold.losses.PNPLoss`. An anchor is a positive of itself here."""

    VARIANTS = ("Ds", "Dq", "Iu", "Ib", "O")

    def __init__(
        self,
        b: float = 2,
        alpha: float = 1,
        anneal: float = 0.01,
        variant: str = "O",
        **shared: Any,
    ) -> None:
        checks.choice(variant, "variant", self.VARIANTS)
        super().__init__(
            lambda **k: (terms.PNP(variant, b, alpha, anneal, **{**k, "remove_diagonal": False}),),
            usual_distance=CosineSimilarity(),
            **shared,
        )


class RankedListLoss(Loss):
    """Ranked list loss; see `kinfold.losses.RankedListLoss`."""

    by_pairs = False

    def __init__(
        self,
        margin: float,
        Tn: float,
        imbalance: float = 0.5,
        alpha: float | None = None,
        Tp: float = 0,
        **shared: Any,
    ) -> None:
        if not 0 <= imbalance <= 1:
            raise WrongArgumentError(
                f"`imbalance` must be from 0 to 1. Received: imbalance={imbalance}."
            )
        outer = 1 + margin / 2 if alpha is None else alpha
        super().__init__(
            None,
            {"loss": (equations.ranked_list(margin, imbalance, outer, (Tp, Tn)), False)},
            LpDistance(),
            takes_references=False,
            **shared,
        )

    def general(self, call: Call) -> Tensor:
        if call.chosen is not None:
            raise NotImplementedError("RankedListLoss takes no indices_tuple.")
        return super().general(call)


class ThresholdConsistentMarginLoss(_Reduced):
    """Threshold-consistent margin loss; its margins are similarities here."""

    def __init__(
        self,
        lambda_plus: float = 1.0,
        lambda_minus: float = 1.0,
        margin_plus: float = 0.9,
        margin_minus: float = 0.5,
        **shared: Any,
    ) -> None:
        super().__init__(
            None,
            {
                "pos_loss": (equations.near_excess(margin_plus, lambda_plus), True),
                "neg_loss": (equations.far_excess(margin_minus, lambda_minus), True),
            },
            CosineSimilarity(),
            **shared,
        )


class IntraPairVarianceLoss(Loss):
    """Intra-pair variance loss; see `kinfold.losses.IntraPairVarianceLoss`."""

    def __init__(self, pos_eps: float = 0.01, neg_eps: float = 0.01, **shared: Any) -> None:
        super().__init__(
            None,
            {
                "pos_loss": (equations.near_variance(pos_eps), True),
                "neg_loss": (equations.far_variance(neg_eps), True),
            },
            CosineSimilarity(),
            **shared,
        )

    def part(self, call: Call, name: str) -> elements.Elements:
        part = super().part(call, name)
        itself = equations.near_itself if name == "pos_loss" else equations.far_itself
        own: dict[str, Any] = {"remove_diagonal": call.same_labels, "dtype": call.dtype}
        of_pairs = itself, reducers.MeanReducer(), self.distance, part.pairs
        mean = call.value(elements.Elements(*of_pairs, **own))
        part.of_anchor = (ops.ones_like(call.x[:, 0]) * mean,)
        return part

    def lists(self, call: Call) -> dict[str, Any]:
        raise NotImplementedError("IntraPairVarianceLoss does not take DoNothingReducer.")


class InstanceLoss(Loss):
    """Softmax of each row of similarities.

    As in the peer, the row of an example of the k-th class of the batch, in the order of the ids,
    is compared with example k, of whatever class that is. For the paper's loss, a softmax over
    instances, take `kinfold.losses.NormalizedSoftmaxLoss` with a class for each.
    """

    needs_labels = True
    by_pairs = False

    def __init__(self, gamma: float = 64, **shared: Any) -> None:
        super().__init__(
            None,
            {"loss": (equations.instance(gamma), False)},
            CosineSimilarity(),
            only=is_cosine,
            takes_references=False,
            **shared,
        )

    def part(self, call: Call, name: str) -> elements.Elements:
        if call.chosen is not None:
            raise NotImplementedError("InstanceLoss takes no indices_tuple.")
        part = super().part(call, name)
        distributed.refuse(part, call.x)
        in_order = ops.sort(call.labels)
        new = ops.cast(ops.not_equal(in_order[1:], in_order[:-1]), "int32")
        number = ops.concatenate([ops.zeros((1,), "int32"), ops.cumsum(new)])
        at = ops.take(number, ops.searchsorted(in_order, call.labels, side="left"))
        part.of_anchor = (ops.cast(at, call.dtype),)
        return part


class _Histogram(losses.HistogramLoss):
    """Every two examples once, and a negative pair only where one of both has a positive."""

    def __init__(self, bins: int, pairs: tuples.Pairs | None = None, **kwargs: Any) -> None:
        super().__init__(bins, **kwargs)
        self.pairs = pairs

    def problem(self, *args: Any, **kwargs: Any) -> Problem:
        problem = super().problem(*args, **kwargs)
        if self.pairs is not None:
            return elements.numbered(problem)
        (part,) = problem.parts
        in_order, dtype = ops.sort(part.labels), keras.backend.standardize_dtype(problem.x.dtype)

        def has_positive(labels: Tensor) -> tuple[Tensor]:
            first, end = (ops.searchsorted(in_order, labels, side=side) for side in _ENDS)
            return (ops.cast(end - first > 1, dtype),)

        parts = (part._replace(extra=has_positive(part.labels)),)
        return problem._replace(extra=has_positive(problem.labels), parts=parts)

    def pair_weights(self, positive: Tensor, negative: Tensor, *extra: Tensor) -> Any:
        own, other = extra
        if self.pairs is not None:
            return elements.times(
                self.pairs, own, other, keras.backend.standardize_dtype(own.dtype)
            )
        # A pair of two such anchors comes twice, and counts half each time.
        number = ops.expand_dims(own, 1) + ops.expand_dims(other, 0)
        share = divide(ops.ones_like(number) * ops.expand_dims(own, 1), number)
        return positive, ops.where(negative, share, ops.zeros_like(share))


class HistogramLoss(_Reduced):
    """Histogram loss; see `kinfold.losses.HistogramLoss`.

    Args:
        n_bins: number of bins on [-1, 1].
        delta: width of a bin, instead of their number.
    """

    def __init__(
        self, n_bins: int | None = None, delta: float | None = None, **shared: Any
    ) -> None:
        bins = 100 if n_bins is None else n_bins
        if delta is not None:
            bins = round(2 / delta)
            if abs(bins * delta - 2) > 1e-9 or n_bins not in (None, bins):
                raise WrongArgumentError(
                    "`delta` must be 2 / n_bins with a whole number of bins. Received: "
                    f"delta={delta}, n_bins={n_bins}."
                )
        super().__init__(lambda **k: (_Histogram(bins, **k),), None, CosineSimilarity(), **shared)
        self.bins = bins

    def general(self, call: Call) -> Tensor:
        pairs = None if call.chosen is None else _once(tuples.triplets_of(call.chosen))
        own: dict[str, Any] = {"dtype": call.dtype, "remove_diagonal": True}
        return call.value(_Histogram(self.bins, pairs, **own))


def _once(chosen: tuples.Triplets) -> tuples.Pairs:
    """The pairs of triplets, each once, whichever of the two is the anchor."""
    near, far = (
        np.unique(np.sort(np.stack([chosen.a, other]), axis=0), axis=1)
        for other in (chosen.p, chosen.n)
    )
    return tuples.Pairs(*near, *far)
