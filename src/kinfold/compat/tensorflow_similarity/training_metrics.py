"""`tensorflow_similarity.training_metrics`: distances within a batch, as metrics of Keras."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold import distances
from kinfold.compat.tensorflow_similarity.distances import get
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32
from kinfold.metrics.task import to_numpy

_register = keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
_REDUCE = {"mean": ops.mean, "avg": ops.mean, "max": ops.max, "min": ops.min, "sum": ops.sum}
_BEYOND = 1e-6  # how far beyond all distances an anchor without a pair counts, as there


@_register
class DistanceMetric(keras.metrics.Metric):
    """A distance of each anchor of the last batch, to a positive or to a negative, reduced.

    An anchor without such a pair counts as the nearest of all there is to it, less 1e-6, where the
    furthest is asked for; and as the furthest, and 1e-6, where the nearest is.

    Args:
        distance: one of the names of `distances.get`, or a `Distance`.
        aggregate: "mean" or "avg", "max", "min" or "sum" over the anchors.
        anchor: "positive" or "negative": which pairs.
        name: of the metric; by default such as "mean_pos".
        positive_mining_strategy: "hard" for the furthest positive, "semi-hard" or "easy" for the
            nearest.
        negative_mining_strategy: "hard" for the nearest negative, "easy" for the furthest.
        **kwargs: those of `keras.metrics.Metric`.

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.training_metrics import max_pos, min_neg
    >>> x, y = np.array([[0.0], [1.0], [5.0], [6.0]], "float32"), np.array([0, 0, 1, 1])
    >>> float(max_pos("l2")(y, x)), float(min_neg("l2")(y, x))
    (1.0, 4.0)
    """

    def __init__(
        self,
        distance: Any,
        aggregate: str = "mean",
        anchor: str = "positive",
        name: str | None = None,
        positive_mining_strategy: str = "hard",
        negative_mining_strategy: str = "hard",
        **kwargs: Any,
    ) -> None:
        self.anchor = checks.choice(anchor, "anchor", ("positive", "negative"))
        self.aggregate = checks.choice(aggregate, "aggregate", tuple(_REDUCE))
        super().__init__(name=name or f"{aggregate}_{anchor[:3]}", **kwargs)
        self.distance = get(distance)
        self.positive_mining_strategy = checks.choice(
            positive_mining_strategy, "positive_mining_strategy", ("hard", "semi-hard", "easy")
        )
        self.negative_mining_strategy = checks.choice(
            negative_mining_strategy, "negative_mining_strategy", ("hard", "easy")
        )
        self.last = self.add_variable((), "zeros", name="last")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Any = None) -> None:
        """Take the value of a batch in place of the one before.

        Args:
            y_true: class ids [batch] or [batch, 1].
            y_pred: embeddings [batch, d].
            sample_weight: None.
        """
        if sample_weight is not None:
            raise ValueError(f"{self.name} takes no `sample_weight`: pass it to `metrics`.")
        self.last.assign(ops.cast(self.of_batch(y_true, y_pred), self.last.dtype))

    def of_batch(self, labels: Tensor, embeddings: Tensor) -> Tensor:
        """Return the value of a batch."""
        labels = ops.reshape(ops.convert_to_tensor(labels), (-1,))
        x = at_least_float32(ops.convert_to_tensor(embeddings))
        pairwise = self.distance(x, x)
        same = ops.expand_dims(labels, 1) == ops.expand_dims(labels, 0)
        own = ops.cast(ops.eye(ops.shape(x)[0]), "bool")
        positive = self.anchor == "positive"
        mask = ops.logical_and(same, ops.logical_not(own)) if positive else ops.logical_not(same)
        strategy = self.positive_mining_strategy if positive else self.negative_mining_strategy
        if positive == (strategy == "hard"):  # the furthest
            least = ops.min(pairwise, axis=1, keepdims=True) - _BEYOND
            found = ops.max(ops.where(mask, pairwise, least), axis=1)
        else:
            most = ops.max(pairwise, axis=1, keepdims=True) + _BEYOND
            found = ops.min(ops.where(mask, pairwise, most), axis=1)
        return _REDUCE[self.aggregate](found)

    def result(self) -> Tensor:
        return ops.convert_to_tensor(self.last)

    def reset_state(self) -> None:
        self.last.assign(0.0)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "distance": distances.serialize(self.distance),
            "aggregate": self.aggregate,
            "anchor": self.anchor,
            "positive_mining_strategy": self.positive_mining_strategy,
            "negative_mining_strategy": self.negative_mining_strategy,
        }


@_register
class DistanceGapMetric(keras.metrics.Metric):
    """How far the nearest negative and the furthest positive of the last batch lie apart.

    |min_neg - max_pos| over the whole batch.

    Args:
        distance: one of the names of `distances.get`, or a `Distance`.
        name: of the metric.
        **kwargs: those of `keras.metrics.Metric`.
    """

    def __init__(self, distance: Any, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name or "dist_gap", **kwargs)
        self.distance = get(distance)
        self._parts = (
            DistanceMetric(self.distance, "max"),
            DistanceMetric(self.distance, "min", "negative"),
        )
        self.last = self.add_variable((), "zeros", name="last")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Any = None) -> None:
        """Take the value of a batch in place of the one before; see `DistanceMetric`."""
        if sample_weight is not None:
            raise ValueError(f"{self.name} takes no `sample_weight`: pass it to `metrics`.")
        furthest, nearest = (part.of_batch(y_true, y_pred) for part in self._parts)
        self.last.assign(ops.cast(ops.abs(nearest - furthest), self.last.dtype))

    def result(self) -> Tensor:
        return ops.convert_to_tensor(self.last)

    def reset_state(self) -> None:
        self.last.assign(0.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "distance": distances.serialize(self.distance)}


def dist_gap(distance: Any) -> DistanceGapMetric:
    """Make a `DistanceGapMetric`."""
    return DistanceGapMetric(distance)


def _named(aggregate: str, anchor: str, doc: str) -> Any:
    made = functools.partial(DistanceMetric, aggregate=aggregate, anchor=anchor)
    made.__doc__ = doc
    return made


max_pos = _named("max", "positive", "The largest distance to a furthest positive.")
avg_pos = _named("mean", "positive", "The mean distance to the furthest positive.")
min_pos = _named("min", "positive", "The smallest distance to a furthest positive.")
sum_pos = _named("sum", "positive", "The sum of the distances to the furthest positive.")
max_neg = _named("max", "negative", "The largest distance to a nearest negative.")
avg_neg = _named("mean", "negative", "The mean distance to the nearest negative.")
min_neg = _named("min", "negative", "The smallest distance to a nearest negative.")
sum_neg = _named("sum", "negative", "The sum of the distances to the nearest negative.")


def batch_class_ratio(sampler: Any, num_batches: int = 100) -> float:
    """Return the mean number of examples per class in the first batches of a sampler.

    Args:
        sampler: gives batches (x, y) by their number, or one after another.
        num_batches: how many to look at, at most.

    Raises:
        ValueError: it gives no batch.
    """
    ratios = []
    batches = (sampler[i] for i in range(len(sampler))) if hasattr(sampler, "__len__") else sampler
    for _, (_, y) in zip(range(checks.count(num_batches, "num_batches")), batches, strict=False):
        labels = to_numpy(y)
        ratios.append(len(labels) / len(np.unique(labels)))
    if not ratios:
        raise ValueError("`sampler` gave no batch. Pass one with a batch (x, y) or more.")
    return float(np.mean(ratios))
