"""`pytorch_metric_learning.reducers`, under its names: how a loss's elements become one number.

An element is what the peer reduces: an anchor, a pair or a triplet. A reducer meets those of a
block of anchors at a time, and says of each anchor what it adds to a sum and how many it counts.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold.compat.pytorch_metric_learning import reducing, tuples
from kinfold.core.checks import Tensor
from kinfold.core.numerics import divide


class BaseReducer:
    """The mean over all elements; subclass it with what is kept, or with another divisor.

    Attributes:
        sums: whether the sum is not divided.
        class_weights: a weight for each class of an anchor, or None.
        by_divisor: whether the loss says what the sum is divided by.

    Args:
        collect_stats: whether `losses_size`, the number of elements, is kept of each call, and by
            ThresholdReducer `num_above_low`, `num_above_high` and `num_past_filter`. A loss then
            makes a list of all its elements, as the peer does.
    """

    sums = False
    class_weights: Any = None
    by_divisor = False

    def __init__(self, collect_stats: bool = False) -> None:
        self.collect_stats = bool(collect_stats)

    def __call__(self, loss_dict: dict[str, dict[str, Any]], embeddings: Any, labels: Any) -> Any:
        """The sum of the reduced parts of a loss.

        Args:
            loss_dict: {part: {"losses", "indices", "reduction_type"}}; see
                `BaseMetricLossFunction.compute_loss`.
            embeddings: [batch, d].
            labels: class ids [batch], for weights of classes.
        """
        x = ops.convert_to_tensor(embeddings)
        parts = [of_part(self, name).of_dict(part, x, labels) for name, part in loss_dict.items()]
        return ops.sum(x) * 0.0 + sum(parts)

    def record(self, losses: Any) -> None:
        """Keep how many elements there are, if it is to."""
        if self.collect_stats:
            self._record(np.atleast_1d(tuples.known(ops.stop_gradient(losses), "losses")))

    def _record(self, losses: np.ndarray) -> None:
        self.losses_size = len(losses)

    def of_dict(self, part: dict[str, Any], embeddings: Tensor, labels: Any) -> Any:
        """A part of a loss as one number."""
        kind, indices, losses = (part[name] for name in ("reduction_type", "indices", "losses"))
        self.record(losses)
        if kind == "already_reduced":
            return losses
        reducer = self.of_anchors() if kind == "element" else self
        losses = ops.reshape(ops.convert_to_tensor(losses), (-1,))
        anchors = indices if kind == "element" else indices[0]
        weights = weights_of(reducer, labels, embeddings)
        if weights is not None:
            weights = ops.take(weights, anchors, axis=0)
        if isinstance(reducer, PerAnchorReducer):
            if kind == "triplet":
                raise NotImplementedError(
                    "PerAnchorReducer takes pairs, and the elements are triplets."
                )
            return reducing.of_pairs(reducer, losses, weights, indices, embeddings.shape[0])
        divisor = part.get("divisor")
        if reducer.by_divisor and divisor is None:
            raise NotImplementedError("This loss has no divisor for DivisorReducer.")
        if divisor is not None:
            divisor = ops.convert_to_tensor(divisor)
        return reducing.of_list(losses, weights, reducer, divisor)

    def kept(self, losses: Tensor) -> Tensor | None:
        """Which elements count, boolean like `losses`; None for all."""
        return None

    def of_anchors(self) -> "BaseReducer":
        """What reduces elements that are anchors already."""
        return self

    def of_rows(self, losses: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """What each anchor adds to a sum, and how many of its elements count; both [t].

        Args:
            losses: of elements, floating [t, k].
            times: how often each of them is one, floating [t, k]: 0 for none.
        """
        kept = self.kept(losses)
        if kept is not None:
            times = ops.where(kept, times, ops.zeros_like(times))
        total = ops.where(times > 0, losses, ops.zeros_like(losses)) * times
        return ops.sum(total, axis=1), ops.sum(times, axis=1)


class MeanReducer(BaseReducer):
    """The mean over all elements."""


class SumReducer(BaseReducer):
    """The sum of all elements."""

    sums = True


class ThresholdReducer(BaseReducer):
    """The mean over elements above `low` and below `high`."""

    def __init__(
        self, low: float | None = None, high: float | None = None, collect_stats: bool = False
    ) -> None:
        super().__init__(collect_stats)
        if low is None and high is None:
            raise ValueError("ThresholdReducer needs `low` or `high`.")
        self.low, self.high = low, high

    def kept(self, losses: Tensor) -> Tensor:
        above = losses > self.low if self.low is not None else losses == losses
        return above if self.high is None else ops.logical_and(above, losses < self.high)

    def _record(self, losses: np.ndarray) -> None:
        super()._record(losses)
        if self.low is not None:
            losses = losses[losses > self.low]
            self.num_above_low = len(losses)
        if self.high is not None:
            losses = losses[losses < self.high]
            self.num_above_high = len(losses)
        self.num_past_filter = len(losses)


class AvgNonZeroReducer(ThresholdReducer):
    """The mean over elements above 0."""

    def __init__(self, collect_stats: bool = False) -> None:
        super().__init__(low=0.0, collect_stats=collect_stats)


class ClassWeightedReducer(BaseReducer):
    """The mean over all elements, each times the weight of its anchor's class.

    Args:
        weights: floating [classes]; labels are positions in it.
    """

    def __init__(self, weights: Any, collect_stats: bool = False) -> None:
        super().__init__(collect_stats)
        self.class_weights = self.weights = weights


class DivisorReducer(BaseReducer):
    """The sum of all elements over what the loss divides by: the hinges above 0 of MarginLoss."""

    by_divisor = True


class PerAnchorReducer(BaseReducer):
    """The mean over each anchor's pairs, which a reducer then takes as elements; 0 without pairs.

    Args:
        reducer: what takes the anchors; None means MeanReducer.
        aggregation_func: what an anchor makes of its pairs, from their losses [t, m], 0 where there
            is no pair, and their number [t]; None means their mean.
    """

    def __init__(
        self, reducer: Any = None, aggregation_func: Any = None, collect_stats: bool = False
    ) -> None:
        super().__init__(collect_stats)
        self.reducer = MeanReducer() if reducer is None else found(reducer)
        self.aggregation_func = aggregation_func
        self.sums, self.class_weights = self.reducer.sums, self.reducer.class_weights
        self.by_divisor = self.reducer.by_divisor

    def of_anchors(self) -> BaseReducer:
        return self.reducer

    def of_rows(self, losses: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        some = times > 0
        losses = ops.where(some, losses, ops.zeros_like(losses))
        number = ops.sum(ops.cast(some, losses.dtype), axis=1)
        if self.aggregation_func is None:
            mean = divide(ops.sum(losses, axis=1), number)
        else:
            mean = self.aggregation_func(losses, number)
        return self.reducer.of_rows(mean[:, None], ops.ones_like(mean)[:, None])


class MultipleReducers(BaseReducer):
    """A reducer for each part of a loss by its name, such as "pos_loss" and "neg_loss".

    Args:
        reducers: {name: reducer}.
        default_reducer: for parts without one; None means MeanReducer.
    """

    def __init__(
        self, reducers: dict[str, Any], default_reducer: Any = None, collect_stats: bool = False
    ) -> None:
        super().__init__(collect_stats)
        self.reducers = {name: found(reducer) for name, reducer in dict(reducers).items()}
        self.default_reducer = MeanReducer() if default_reducer is None else found(default_reducer)

    def of_part(self, name: str) -> BaseReducer:
        return self.reducers.get(name, self.default_reducer)


class DoNothingReducer(BaseReducer):
    """No reduction: a loss returns {part: {"losses", "indices", "reduction_type"}}, as lists."""

    def __call__(self, loss_dict: dict[str, dict[str, Any]], embeddings: Any, labels: Any) -> Any:
        return loss_dict


def of_part(reducer: BaseReducer, name: str) -> BaseReducer:
    """The reducer of a part of a loss."""
    return reducer.of_part(name) if isinstance(reducer, MultipleReducers) else reducer


def weights_of(reducer: BaseReducer, labels: Tensor, like: Tensor) -> Tensor | None:
    """The class weight of each anchor [n], or None."""
    if reducer.class_weights is None:
        return None
    dtype = keras.backend.standardize_dtype(like.dtype)
    weights = ops.convert_to_tensor(reducer.class_weights, dtype=dtype)
    return ops.take(weights, labels, axis=0)


_KINDS = {
    kind.__name__: kind
    for kind in (
        *(MeanReducer, SumReducer, ThresholdReducer, AvgNonZeroReducer, ClassWeightedReducer),
        *(DivisorReducer, PerAnchorReducer, MultipleReducers, DoNothingReducer),
    )
}
_ARGUMENTS = {
    "ThresholdReducer": ("low", "high"),
    "ClassWeightedReducer": ("weights",),
    "PerAnchorReducer": ("reducer", "aggregation_func"),
    "MultipleReducers": ("reducers", "default_reducer"),
}


def found(reducer: Any) -> BaseReducer:
    """Return `reducer` as one of these: ours, or the peer's own object."""
    if isinstance(reducer, BaseReducer):
        return reducer
    name, module = type(reducer).__name__, type(reducer).__module__
    if not module.startswith("pytorch_metric_learning.") or name not in _KINDS:
        raise TypeError(
            "`reducer` must be one of kinfold.compat.pytorch_metric_learning.reducers. "
            f"Received: reducer={reducer!r}."
        )
    given = {one: getattr(reducer, one) for one in _ARGUMENTS.get(name, ())}
    given["collect_stats"] = getattr(reducer, "collect_stats", False)  # not all versions have it
    if getattr(given.get("aggregation_func"), "__module__", "").startswith(
        "pytorch_metric_learning."
    ):
        del given["aggregation_func"]  # its default is ours
    return _KINDS[name](**given)
