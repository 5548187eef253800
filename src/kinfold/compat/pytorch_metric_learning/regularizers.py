"""`pytorch_metric_learning.regularizers`, under its names: a number of a matrix's rows [n, d].

Losses take one as `embedding_regularizer=`; any other function of the embeddings serves, too.
"""

from typing import Any

import numpy as np
from keras import ops

from kinfold.compat.pytorch_metric_learning import distances, reducers, reducing, tuples
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import square_root


class BaseRegularizer:
    """The reduced elements of `of_rows`; subclass it with these.

    Args:
        reducer: one of `reducers`; None means the mean.
        distance: what rows are compared by, where they are.
        collect_stats: whether what SparseCentersRegularizer finds in a call is kept.
    """

    usual_distance: Any = None

    def __init__(
        self, reducer: Any = None, distance: Any = None, collect_stats: bool = False
    ) -> None:
        self.collect_stats = bool(collect_stats)
        self.reducer = reducers.found(reducer or self.usual_reducer()).of_anchors()
        self.distance = distances.found(distance) if distance else self.usual_distance

    def usual_reducer(self) -> reducers.BaseReducer:
        return reducers.MeanReducer()

    def __call__(self, x: Any) -> Tensor:
        """The number of the rows of `x` [n, d], floating: a scalar."""
        rows = checks.embeddings(x, "x", checks.compute_dtype(x))
        labels = ops.arange(rows.shape[0], dtype="int32")
        weights = reducers.weights_of(self.reducer, labels, rows)
        found = self.of_rows(rows)
        if self.reducer.by_divisor and len(found) == 1:
            raise NotImplementedError(f"{type(self).__name__} has no divisor for DivisorReducer.")
        return reducing.of_list(found[0], weights, self.reducer, *found[1:])

    def of_rows(self, x: Tensor) -> tuple[Tensor, ...]:
        """The elements [k], and, where there is one, what a DivisorReducer divides by."""
        raise NotImplementedError


class LpRegularizer(BaseRegularizer):
    """||x||_p of each row, to a power."""

    def __init__(self, p: float = 2, power: float = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.p, self.power = p, power

    def of_rows(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.p == 2:
            norm = square_root(ops.sum(x * x, axis=1))
        else:
            norm = distances.LpDistance(p=self.p).pairwise_distance(x, ops.zeros_like(x))
        return (norm if self.power == 1 else norm**self.power,)


class CenterInvariantRegularizer(BaseRegularizer):
    """(||x||^2 - mean ||x||^2)^2 / 4 of each row."""

    def of_rows(self, x: Tensor) -> tuple[Tensor, ...]:
        square = ops.sum(x * x, axis=1)
        return ((square - ops.sum(square) / x.shape[0]) ** 2 / 4,)


class ZeroMeanRegularizer(BaseRegularizer):
    """|sum over d of x| of each row."""

    def of_rows(self, x: Tensor) -> tuple[Tensor, ...]:
        return (ops.abs(ops.sum(x, axis=1)),)


class RegularFaceRegularizer(BaseRegularizer):
    """The similarity of each row to the most similar other one."""

    usual_distance = distances.CosineSimilarity()

    def of_rows(self, x: Tensor) -> tuple[Tensor, ...]:
        similarity = self.distance.pairwise(x, x)
        own = ops.eye(x.shape[0], dtype="bool")
        lowest = ops.full_like(similarity, -float("inf"))
        return (ops.max(ops.where(own, lowest, similarity), axis=1),)


class SparseCentersRegularizer(BaseRegularizer):
    """sqrt(2 - 2 cos) of the pairs of centres of one class, over twice their number.

    Args:
        num_classes: classes.
        centers_per_class: rows of each, which lie together.
    """

    usual_distance = distances.CosineSimilarity()

    def __init__(self, num_classes: int, centers_per_class: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = checks.count(num_classes, "num_classes")
        self.centers_per_class = checks.count(centers_per_class, "centers_per_class", least=2)

    def usual_reducer(self) -> reducers.BaseReducer:
        return reducers.DivisorReducer()

    def of_rows(self, x: Tensor) -> tuple[Tensor, ...]:
        total = self.num_classes * self.centers_per_class
        if x.shape[0] != total:
            raise ValueError(
                f"`x` must have num_classes * centers_per_class rows, {total}. Received "
                f"{x.shape[0]}."
            )
        i, j = np.triu_indices(self.centers_per_class, 1)
        first = np.arange(self.num_classes)[:, None] * self.centers_per_class
        rows, columns = ((first + part).ravel() for part in (i, j))
        cosine = self.distance.paired(ops.take(x, rows, axis=0), ops.take(x, columns, axis=0))
        divisor = ops.convert_to_tensor(2 * len(rows))
        if self.collect_stats:
            self._record(x, cosine)
        return square_root(2.0 - 2.0 * cosine), divisor

    def _record(self, x: Tensor, cosine: Tensor) -> None:
        """Keep the mean similarities of centres of one class and of different ones."""
        classes = np.repeat(np.arange(self.num_classes), self.centers_per_class)
        mat = tuples.numbers(self.distance.pairwise(x, x))
        self.same_class_center_sim = float(tuples.numbers(cosine).mean())
        self.diff_class_center_sim = float(mat[classes[:, None] != classes].mean())
