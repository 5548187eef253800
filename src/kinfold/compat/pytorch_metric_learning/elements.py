"""A part of a loss as the peer has it: elements, which a reducer makes one number of; streamed."""

from typing import Any

import keras
from keras import ops

from kinfold import losses
from kinfold.compat.pytorch_metric_learning import tuples
from kinfold.compat.pytorch_metric_learning.distances import BaseDistance
from kinfold.compat.pytorch_metric_learning.equations import Equation
from kinfold.compat.pytorch_metric_learning.reducers import BaseReducer
from kinfold.core.checks import Tensor
from kinfold.core.numerics import softplus
from kinfold.streaming import Problem


class Elements(losses.PairLoss):
    """The elements of an equation, reduced; a block of anchors at a time.

    Args:
        equation: see `equations`.
        reducer: what makes one number of the elements.
        pairs: those that a miner chose, instead of all.
        of_anchor: further tensors [n] that the equation takes of the anchors.
    """

    def __init__(
        self,
        equation: Equation,
        reducer: BaseReducer,
        distance: BaseDistance,
        pairs: tuples.Pairs | None = None,
        of_anchor: tuple[Tensor, ...] = (),
        **kwargs: Any,
    ) -> None:
        reduction = "sum" if reducer.sums else "sum_over_batch_size"
        super().__init__(distance=distance, reduction=reduction, **kwargs)
        self.equation, self.reducer, self.pairs = equation, reducer, pairs
        self.of_anchor = of_anchor

    def problem(self, *args: Any, **kwargs: Any) -> Problem:
        problem = super().problem(*args, **kwargs)
        if self.pairs is None:
            return problem._replace(extra=self.of_anchor)
        return numbered(problem, self.of_anchor)

    def valid_anchors(self, positive: Tensor, negative: Tensor) -> Tensor:
        return ops.ones_like(positive[:, 0], dtype="bool")

    def per_anchor(
        self, distance: Tensor, positive: Tensor, negative: Tensor, *extra: Tensor
    ) -> tuple[Tensor, Tensor]:
        dtype = keras.backend.standardize_dtype(distance.dtype)
        if self.pairs is None:
            positive, negative = (ops.cast(mask, dtype) for mask in (positive, negative))
        else:
            rows, columns, extra = extra[0], extra[-1], extra[1:-1]
            positive, negative = times(self.pairs, rows, columns, dtype)
        found = self.equation(self.distance, distance, positive, negative, *extra)
        return self.reducer.of_rows(*found) if len(found) == 2 else self._divided(*found)

    def _divided(self, total: Tensor, number: Tensor, divisor: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of rows [t], for elements that no list is made of: see `equations.margin`."""
        return total, divisor if self.reducer.by_divisor else number


def numbered(problem: Problem, of_anchor: tuple[Tensor, ...] = ()) -> Problem:
    """A problem whose blocks are told which anchors and references they hold, for `times`."""
    if problem.rows:
        raise NotImplementedError(
            "A miner's pairs are of one process's batch, and this loss is over the batch of all "
            "ranks. Pass `gather_across_devices=False` to a loss of kinfold.losses."
        )
    (part,) = problem.parts
    rows, columns = numbers(problem.x), numbers(part.embeddings)
    return problem._replace(extra=(rows, *of_anchor), parts=(part._replace(extra=(columns,)),))


def times(pairs: tuples.Pairs, rows: Tensor, columns: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """How often each pair of a block is a positive and a negative one of a list, [t, m] each."""
    a1, p, a2, n = pairs
    positive = tuples.times(a1, p, rows, columns, dtype)
    return positive, tuples.times(a2, n, rows, columns, dtype)


class AllTriplets(losses.TripletLoss):
    """All triplets, one positive of each anchor after the other, and the elements that count."""

    def __init__(self, margin: float, smooth: bool, reducer: BaseReducer, **kwargs: Any) -> None:
        reduction = "sum" if reducer.sums else "sum_over_batch_size"
        super().__init__(margin, "all", "all", reduction=reduction, **kwargs)
        self.smooth, self.reducer = smooth, reducer

    def terms(self, loss: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kept = self.reducer.kept(loss)
        if kept is not None:
            chosen = ops.logical_and(chosen, kept)
            loss = ops.where(chosen, loss, ops.zeros_like(loss))
        return loss, chosen, chosen

    def _of_gap(self, gap: Tensor) -> Tensor:
        return softplus(gap + self.margin) if self.smooth else super()._of_gap(gap)

    def _slope(self, gap: Tensor) -> Tensor:
        return ops.sigmoid(gap + self.margin) if self.smooth else super()._slope(gap)


class Sum(losses.PairLoss):
    """The sum of some losses of the same batch, each with a mean of its own."""

    def __init__(self, parts: tuple[losses.PairLoss, ...]) -> None:
        first = parts[0]
        super().__init__(first.distance, normalize=first.normalize, dtype=first.dtype)
        self.parts = parts

    def __call__(self, y_true: Any, y_pred: Any, *args: Any, **kwargs: Any) -> Tensor:
        return sum(part(y_true, y_pred, *args, **kwargs) for part in self.parts)

    def problem(self, *args: Any, **kwargs: Any) -> Problem:
        return self.parts[0].problem(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError(
            "A memory around a loss of pytorch-metric-learning's names is not saved. Save the "
            "encoder, or take a loss of kinfold.losses."
        )


def numbers(like: Tensor) -> Tensor:
    """0, 1, 2 and so on, floating [n]; whole up to 2^24."""
    dtype = "float64" if like.dtype == "float64" else "float32"
    return ops.arange(ops.shape(like)[0], dtype=dtype)
