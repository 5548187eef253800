"""The losses of pytorch-metric-learning that compare all pairs, and weigh anchors by a miner's."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold import losses
from kinfold.compat.pytorch_metric_learning import elements, equations, reducers, terms, tuples
from kinfold.compat.pytorch_metric_learning.calls import Call, Loss
from kinfold.compat.pytorch_metric_learning.distances import (
    BaseDistance,
    CosineSimilarity,
    LpDistance,
)
from kinfold.core.checks import Tensor


class _Weighted(Loss):
    """A loss that takes how often a miner chose an example as the weight of its anchor."""

    needs_labels = True
    by_pairs = False

    def general(self, call: Call) -> Tensor:
        found = np.ones(call.x.shape[0])
        if call.chosen is not None:
            found = tuples.weights_of(call.chosen, call.x.shape[0], call.given)
            call.chosen = None  # all pairs are compared
        times = ops.convert_to_tensor(found, dtype=keras.backend.standardize_dtype(call.x.dtype))
        reducer = reducers.of_part(self.reducer, "loss").of_anchors()
        if reducer.by_divisor:
            raise NotImplementedError(f"{type(self).__name__} has no divisor for DivisorReducer.")
        return call.value(self.weighed(call, reducer, times), self.anchor_weights(call, reducer))

    def weighed(self, call: Call, reducer: reducers.BaseReducer, times: Tensor) -> losses.PairLoss:
        """The loss, that of each anchor times a weight [n]."""
        raise NotImplementedError


class NCALoss(_Weighted):
    """Neighbourhood components analysis on squared Euclidean distances."""

    def __init__(self, softmax_scale: float = 1, **shared: Any) -> None:
        super().__init__(
            lambda **k: (terms.NCA(1.0 / softmax_scale, distance="squared_euclidean", **k),),
            {"loss": (equations.nca(softmax_scale), False)},
            LpDistance(power=2),
            **shared,
        )

    def weighed(self, call: Call, reducer: reducers.BaseReducer, times: Tensor) -> losses.PairLoss:
        equation, _ = self.parts()["loss"]

        def times_weight(*of_block: Any) -> tuple[Tensor, ...]:
            of_block, weight = of_block[:-1], of_block[-1]
            loss, number = equation(*of_block)
            return loss * weight[:, None], number

        own: dict[str, Any] = {"remove_diagonal": call.same_labels, "dtype": call.dtype}
        return elements.Elements(times_weight, reducer, self.distance, of_anchor=(times,), **own)


class FastAPLoss(_Weighted):
    """FastAP; see `kinfold.losses.FastAPLoss`."""

    def __init__(self, num_bins: int = 10, **shared: Any) -> None:
        super().__init__(
            lambda **k: (losses.FastAPLoss(num_bins, **k),),
            usual_distance=LpDistance(power=2),
            only=is_unit_euclidean(2),
            takes_references=False,
            **shared,
        )
        self.num_bins = num_bins

    def weighed(self, call: Call, reducer: reducers.BaseReducer, times: Tensor) -> losses.PairLoss:
        return terms.FastAP(reducer, times, self.num_bins, normalize=True, dtype=call.dtype)


class SmoothAPLoss(_Weighted):
    """Smooth-AP; see `kinfold.losses.SmoothAPLoss`. An anchor is a positive of itself here."""

    def __init__(self, temperature: float = 0.01, **shared: Any) -> None:
        super().__init__(
            lambda **k: (terms.SmoothAP(temperature, **{**k, "remove_diagonal": False}),),
            usual_distance=CosineSimilarity(),
            only=is_cosine,
            takes_references=False,
            **shared,
        )
        self.temperature = temperature

    def weighed(self, call: Call, reducer: reducers.BaseReducer, times: Tensor) -> losses.PairLoss:
        own: dict[str, Any] = {"remove_diagonal": False, "normalize": True, "dtype": call.dtype}
        return terms.WeighedSmoothAP(reducer, times, self.temperature, **own)


def is_cosine(distance: BaseDistance) -> bool:
    return isinstance(distance, CosineSimilarity)


def is_unit_euclidean(power: float) -> Any:
    def is_it(distance: BaseDistance) -> bool:
        of_two = isinstance(distance, LpDistance) and distance.p == 2
        return of_two and distance.power == power and distance.normalize_embeddings

    return is_it
