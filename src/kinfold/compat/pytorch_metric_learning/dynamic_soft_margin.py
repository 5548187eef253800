"""Dynamic soft margin, as pytorch-metric-learning has it: it keeps a histogram between calls."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold.compat.pytorch_metric_learning import triplets
from kinfold.compat.pytorch_metric_learning.calls import Call
from kinfold.compat.pytorch_metric_learning.own import BaseMetricLossFunction
from kinfold.core import checks
from kinfold.core.checks import Tensor


class DynamicSoftMarginLoss(BaseMetricLossFunction):
    """d_p - d_n of each triplet, weighed by how many of those seen lately are smaller.

    With labels, of all triplets; without, of two views, each pair with its nearest negative. It
    keeps a histogram, `hist_`. Gradients reach it by the batch at hand alone; in the peer they go
    on to the batches before, so that its second step fails.

    Args:
        min_val: the least of d_p - d_n.
        num_bins: bins from `min_val` to `-min_val`.
        momentum: the share of a batch in the histogram.
    """

    def __init__(
        self, min_val: float = -2.0, num_bins: int = 10, momentum: float = 0.01, **shared: Any
    ) -> None:
        super().__init__(**shared)
        if not (self.distance.name == "LpDistance" and self.distance.p == 2):
            raise ValueError("DynamicSoftMarginLoss is written for LpDistance(p=2).")
        self.min_val, self.num_bins = min_val, checks.count(num_bins, "num_bins")
        self.delta, self.momentum = 2 * abs(min_val) / self.num_bins, momentum
        self.hist_: Any = None

    def compute_loss(
        self, embeddings: Any, labels: Any, indices_tuple: Any, ref_emb: Any, ref_labels: Any
    ) -> dict[str, dict[str, Any]]:
        if not checks.is_concrete(embeddings):
            raise NotImplementedError(
                "DynamicSoftMarginLoss keeps a histogram of what it sees, which a compiled step "
                "and the transforms of JAX do not allow."
            )
        if labels is None:
            gap = self._of_views(embeddings, ref_emb, indices_tuple)
        else:
            same = ref_labels is labels
            refs = (None, None) if same else (ref_emb, ref_labels)
            call = Call(embeddings, labels, indices_tuple, *refs)
            near, far, _ = triplets.distances_of(
                call, self.distance, triplets.triplets(call, "all")
            )
            gap = near - far
        if not gap.shape[0]:
            return self.zero_losses()
        place = (gap - self.min_val) / self.delta
        at = ops.cast(ops.floor(ops.stop_gradient(place)), "int32")
        share = place - ops.cast(at, place.dtype)
        number = self.num_bins
        lower, upper = (
            ops.segment_sum(part, bins, num_segments=number + 1)[:number]
            for part, bins in ((1 - share, at), (share, at + 1))
        )
        old = self.hist_
        if old is None:
            new = lower + upper
        else:
            old = ops.cast(old, gap.dtype)
            new = old * (1 - self.momentum) + (lower + upper) * self.momentum
        new = new / ops.sum(new)
        self.hist_ = ops.stop_gradient(new)
        tri = ops.tri(number, dtype=keras.backend.standardize_dtype(new.dtype))
        weights = ops.take(ops.sum(tri * new, axis=1), ops.clip(at, 0, number - 1), axis=0)
        mean = ops.sum(weights * gap) / gap.shape[0]
        return {"loss": {"losses": mean, "indices": None, "reduction_type": "already_reduced"}}

    def _of_views(self, x: Tensor, r: Tensor, indices_tuple: Any) -> Tensor:
        if indices_tuple is not None:
            raise ValueError("DynamicSoftMarginLoss takes indices_tuple only with labels.")
        mat = self.distance(x, r)
        n, m = mat.shape
        own = ops.convert_to_tensor(np.eye(n, m, dtype=bool))
        apart = ops.where(own, ops.full_like(mat, float("inf")), mat)
        most = max(n, m)
        # As there: what one of both has no partner for counts as 0.
        near = ops.pad(ops.diagonal(mat), [[0, most - min(n, m)]])
        by_column = ops.pad(ops.min(apart, axis=0), [[0, most - m]])
        by_row = ops.pad(ops.min(apart, axis=1), [[0, most - n]])
        return near - ops.minimum(by_column, by_row)
