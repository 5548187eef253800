"""Histogram loss."""

from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import divide, sum_at
from kinfold.losses.whole_batch import WholeBatchLoss, in_all, table
from kinfold.streaming import Problem


@keras.saving.register_keras_serializable("kinfold")
class HistogramLoss(WholeBatchLoss):
    """Histogram loss: how likely a negative pair of the batch is more similar than a positive one.

    With h+ and h- the densities of the cosine similarities of all positive and of all negative
    pairs, as histograms of bins + 1 nodes on [-1, 1] between which a pair is divided linearly:

        sum_r h-_r sum_{q <= r} h+_q

    It has no margin and no temperature. A mean is over the negative pairs of the whole batch, and
    without reduction the loss of an anchor is the sum over its own; so no anchor is invalid.

    Args:
        bins: number of bins.

    The other arguments are those of `PairLoss`.

    Raises:
        ValueError: bins that are no positive whole number, or an unknown reduction.

    Reference:
        Ustinova and Lempitsky, Learning Deep Embeddings with Histogram Loss, NIPS 2016,
        https://arxiv.org/abs/1611.00822

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import HistogramLoss
    >>> x = np.array([[1, 0], [0, 1], [0.8, 0.6]], "float32")
    >>> print(f"{float(HistogramLoss()(np.array([0, 0, 1]), x)):.4f}")
    1.0000
    """

    def __init__(
        self,
        bins: int = 100,
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "histogram_loss",
        dtype: Any = None,
        *,
        normalize: bool = True,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__("cosine", remove_diagonal, *shared)
        self.bins = checks.count(bins, "bins")

    def pair_weights(self, positive: Tensor, negative: Tensor, *extra: Tensor) -> Any:
        """How often each pair of a block counts as a positive and as a negative one, [t, m]."""
        return positive, negative

    def of_anchors(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """Sum over the negative pairs of each anchor [n], and how many they are [n]."""
        rows = table(self, problem, self._histograms, 2 * (self.bins + 1))
        positives, negatives = rows[:, : self.bins + 1], rows[:, self.bins + 1 :]
        every = in_all(problem, positives)
        share = divide(every, ops.ones_like(every) * ops.stop_gradient(ops.sum(every)))
        # Of each node and those below: Keras's running sum is in float32 alone.
        lower = ops.tri(self.bins + 1, dtype=keras.backend.standardize_dtype(share.dtype))
        below = ops.sum(lower * ops.expand_dims(share, 0), axis=1, keepdims=True)
        return ops.squeeze(negatives @ below, 1), ops.stop_gradient(ops.sum(negatives, axis=1))

    def _histograms(
        self, distance: Tensor, positive: Tensor, negative: Tensor, *extra: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The positives and the negatives of each anchor over the nodes, [t, 2 (bins + 1)]."""
        place = (2.0 - distance) * (self.bins / 2.0)
        below = ops.where(place > 0, ops.floor(place), ops.zeros_like(place))  # NaN is no position
        node = ops.cast(ops.clip(below, 0, self.bins - 1), "int32")
        above = place - ops.cast(node, place.dtype)
        t, nodes = ops.shape(distance)[0], self.bins + 1
        of_row = ops.expand_dims(ops.arange(t, dtype="int32") * nodes, 1)
        at = ops.reshape(of_row + node, (-1,))
        found = []
        for weight in self.pair_weights(positive, negative, *extra):
            weight = ops.cast(weight, place.dtype)
            low, high = (ops.reshape(part * weight, (-1,)) for part in (1.0 - above, above))
            total = sum_at(low, at, t * nodes) + sum_at(high, at + 1, t * nodes)
            found.append(ops.reshape(total, (t, nodes)))
        return ops.concatenate(found, axis=1), ops.ones_like(distance[:, 0])

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "bins": self.bins}
        del config["distance"]
        return config
