"""The losses of pytorch-metric-learning whose elements are triplets."""

import random
from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold import losses
from kinfold.compat.pytorch_metric_learning import elements, equations, reducers, reducing, tuples
from kinfold.compat.pytorch_metric_learning.calls import Call, Loss, Module, masks
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import softplus

# Triplets that a list of all of them may hold.
MOST = 10**8


class TripletMarginLoss(Loss):
    """All triplets, the mean over those that violate the margin.

    Memory is linear in the batch, but with `swap`, a number of triplets per anchor, or a miner's
    triplets: these are a list.

    Args:
        margin: by how much a positive must be nearer.
        swap: whether a negative counts with its distance to the positive where that is smaller.
        smooth_loss: softplus in place of relu.
        triplets_per_anchor: "all", or how many are drawn at random of each anchor.
    """

    def __init__(
        self,
        margin: float = 0.05,
        swap: bool = False,
        smooth_loss: bool = False,
        triplets_per_anchor: Any = "all",
        **shared: Any,
    ) -> None:
        super().__init__(
            lambda **k: (losses.TripletLoss(margin, "all", "all", distance="euclidean", **k),),
            usual_reducer=reducers.AvgNonZeroReducer(),
            **shared,
        )
        self.margin, self.swap, self.smooth_loss = margin, bool(swap), bool(smooth_loss)
        self.triplets_per_anchor = _number(triplets_per_anchor)
        self._usual = self._usual and not (swap or smooth_loss) and triplets_per_anchor == "all"

    def general(self, call: Call) -> Tensor:
        reducer = refuse_per_anchor(reducers.of_part(self.reducer, "loss"))
        if reducer.by_divisor:
            raise NotImplementedError(
                "TripletMarginLoss has nothing that DivisorReducer divides by."
            )
        weights = self.anchor_weights(call, reducer)
        if call.chosen is None and not self.swap and self.triplets_per_anchor == "all":
            loss = elements.AllTriplets(
                self.margin,
                self.smooth_loss,
                reducer,
                distance=self.distance,
                remove_diagonal=call.same_labels,
                dtype=call.dtype,
            )
            return call.value(loss, weights)
        chosen = triplets(call, self.triplets_per_anchor)
        return reducing.of_list(self._of(call, chosen), of_anchors(weights, chosen), reducer)

    def _of(self, call: Call, chosen: tuples.Triplets) -> Tensor:
        """The loss of each triplet [k]."""
        near, far, between = distances_of(call, self.distance, chosen, self.swap)
        if between is not None:
            nearer = self.distance.margin(far, between) > 0
            far = ops.where(nearer, between, far)
        gap = self.distance.margin(near, far) + self.margin
        return softplus(gap) if self.smooth_loss else ops.relu(gap)

    def lists(self, call: Call) -> dict[str, Any]:
        chosen = triplets(call, self.triplets_per_anchor)
        return {"loss": _listed(self._of(call, chosen), chosen)}


class MarginLoss(Loss):
    """Margin loss, with a fixed or a learned boundary; see `kinfold.losses.MarginLoss`.

    Args:
        margin: half of the band around the boundary that costs.
        nu: weight of the learned boundary in the loss; of a fixed one it has no effect.
        beta: the boundary between positives and negatives.
        triplets_per_anchor: "all", or how many are drawn at random of each anchor.
        learn_beta: whether `beta` is learned: a parameter on PyTorch, else a variable of Keras.
        num_classes: the number of classes, for a boundary of each; None for one.
    """

    def __init__(
        self,
        margin: float = 0.2,
        nu: float = 0,
        beta: float = 1.2,
        triplets_per_anchor: Any = "all",
        learn_beta: bool = False,
        num_classes: int | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(
            lambda **k: (losses.MarginLoss(margin, beta, **k),),
            usual_reducer=reducers.DivisorReducer(),
            **shared,
        )
        self.margin, self.nu, self.learn_beta = margin, nu, bool(learn_beta)
        self.triplets_per_anchor = _number(triplets_per_anchor)
        start = np.full(1 if num_classes is None else num_classes, beta, "float32")
        self.beta: Any
        if Module is object:
            variable = keras.Variable(start, name="beta") if learn_beta else None
            self.beta = ops.convert_to_tensor(start) if variable is None else variable
        elif learn_beta:
            import torch

            self.beta = torch.nn.Parameter(ops.convert_to_tensor(start))
        else:  # `.to` moves it, and it is not saved
            self.register_buffer("beta", ops.convert_to_tensor(start), persistent=False)
        of_one = not learn_beta and num_classes is None
        self._usual = self._usual and of_one and triplets_per_anchor == "all"

    def general(self, call: Call) -> Tensor:
        reducer = refuse_per_anchor(reducers.of_part(self.reducer, "margin_loss"))
        beta = self._beta(call)
        nu = self.nu if self.learn_beta and len(self.beta.shape) and self.beta.shape[0] > 1 else 0.0
        if call.chosen is None and self.triplets_per_anchor == "all" and _of_sums(reducer):
            part = elements.Elements(
                equations.margin(self.margin, nu),
                reducer,
                self.distance,
                of_anchor=(beta,),
                remove_diagonal=call.same_labels,
                dtype=call.dtype,
            )
            value = call.value(part, self.anchor_weights(call, reducer))
        else:
            value = self._of_list(call, beta, nu, reducer)
        if self.learn_beta and not nu:
            value = (
                value + ops.cast(ops.sum(ops.convert_to_tensor(self.beta)), value.dtype) * self.nu
            )
        return value

    def _beta(self, call: Call) -> Tensor:
        """The boundary of each anchor [n]."""
        beta = ops.cast(ops.convert_to_tensor(self.beta), call.x.dtype)
        if beta.shape[0] > 1:
            return ops.take(beta, call.labels, axis=0)
        return ops.broadcast_to(beta, (call.x.shape[0],))

    def _of_list(self, call: Call, beta: Tensor, nu: float, reducer: Any) -> Tensor:
        chosen = triplets(call, self.triplets_per_anchor)
        loss, divisor = self._of(call, chosen, beta)
        weights = of_anchors(self.anchor_weights(call, reducer), chosen)
        value = reducing.of_list(loss, weights, reducer, divisor)
        if not nu:
            return value
        of_beta = nu * ops.take(beta, chosen.a, axis=0)
        return value + reducing.of_list(of_beta, weights, reducer, divisor)

    def _of(self, call: Call, chosen: tuples.Triplets, beta: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each triplet [k], and the number of hinges above 0."""
        near, far, _ = distances_of(call, self.distance, chosen)
        beta = ops.take(beta, chosen.a, axis=0)
        near = ops.relu(self.distance.margin(near, beta) + self.margin)
        far = ops.relu(self.distance.margin(beta, far) + self.margin)
        above = [ops.sum(ops.cast(hinge > 0, hinge.dtype)) for hinge in (near, far)]
        return near + far, above[0] + above[1]

    def lists(self, call: Call) -> dict[str, Any]:
        chosen = triplets(call, self.triplets_per_anchor)
        loss, divisor = self._of(call, chosen, self._beta(call))
        return {"margin_loss": {**_listed(loss, chosen), "divisor": divisor}}


def triplets(call: Call, per_anchor: Any) -> tuples.Triplets:
    """The triplets of a call as a list: a miner's, all, or so many of each anchor at random.

    Random ones follow `keras.utils.set_random_seed`.
    """
    if call.chosen is not None:
        return tuples.triplets_of(call.chosen)
    positive, negative = (mask > 0 for mask in masks(call))
    if per_anchor == "all":
        if (count := int((positive.sum(1) * negative.sum(1)).sum())) > MOST:
            raise ValueError(
                f"A list of all {count:,} triplets takes too much memory: {MOST:,} are allowed. "
                "Pass `triplets_per_anchor`, or leave out `swap`."
            )
        return tuples.triplets_of(tuples.Pairs(*np.nonzero(positive), *np.nonzero(negative)))
    rows = np.flatnonzero(positive.any(1) & negative.any(1))
    rng = np.random.default_rng(random.getrandbits(63))
    drawn = [
        [i, rng.choice(np.flatnonzero(positive[i])), rng.choice(np.flatnonzero(other))]
        for i, other in zip(rows, negative[rows], strict=True)
        for _ in range(per_anchor)
    ]
    return tuples.Triplets(*np.array(drawn, "int64").reshape(-1, 3).T)


def distances_of(
    call: Call, distance: Any, chosen: tuples.Triplets, swap: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Distances [k]: anchors to positives, to negatives, and, to swap, positives to negatives."""
    a = ops.take(call.x, chosen.a, axis=0)
    p, n = (ops.take(call.r, at, axis=0) for at in (chosen.p, chosen.n))
    between = None
    if swap:  # as there: the row of the positive's position among the anchors
        between = distance.paired(ops.take(call.x, chosen.p, axis=0), n)
    return distance.paired(a, p), distance.paired(a, n), between


def of_anchors(weights: Tensor | None, chosen: tuples.Triplets) -> Tensor | None:
    return None if weights is None else ops.take(weights, chosen.a, axis=0)


def refuse_per_anchor(reducer: reducers.BaseReducer) -> reducers.BaseReducer:
    if isinstance(reducer, reducers.PerAnchorReducer):
        raise NotImplementedError("PerAnchorReducer takes pairs, and the elements are triplets.")
    return reducer


def _of_sums(reducer: reducers.BaseReducer) -> bool:
    """Whether the sum of an anchor's triplets is enough for it."""
    return not isinstance(reducer, reducers.ThresholdReducer)


def _listed(loss: Tensor, chosen: tuples.Triplets) -> dict[str, Any]:
    indices = tuple(ops.convert_to_tensor(part, dtype="int32") for part in chosen)
    return {"losses": loss, "indices": indices, "reduction_type": "triplet"}


def _number(triplets_per_anchor: Any) -> Any:
    if triplets_per_anchor == "all":
        return "all"
    return checks.count(triplets_per_anchor, "triplets_per_anchor")
