"""The losses of pytorch-metric-learning that are a mean over positive pairs, streamed as sums."""

import math
from typing import Any

import numpy as np
from keras import ops

from kinfold.compat.pytorch_metric_learning import reducers, reducing, statistics, terms
from kinfold.compat.pytorch_metric_learning.calls import Call, Loss, masks
from kinfold.compat.pytorch_metric_learning.weighted import is_unit_euclidean
from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row, log_sum_exp, softplus, unit_rows
from kinfold.losses.lifted_structure import NONE, log_add


class _Summed(Loss):
    """Streamed with a plain reducer; a miner's pairs or another reducer take a list or a matrix."""

    by_pairs = False

    def general(self, call: Call) -> Tensor:
        reducer = reducers.of_part(self.reducer, "loss")
        if reducer.by_divisor:
            raise NotImplementedError(f"{type(self).__name__} has no divisor for DivisorReducer.")
        plain = (reducers.MeanReducer, reducers.SumReducer, reducers.ClassWeightedReducer)
        weights = self.anchor_weights(call, reducer)
        if call.chosen is not None or not isinstance(reducer, plain):
            return self.of_pairs(call, reducer, weights)
        build: Any = self._to_references if call.given else self._build
        reduction = "sum" if reducer.sums else "sum_over_batch_size"
        own = {"remove_diagonal": call.same_labels, "dtype": call.dtype, "reduction": reduction}
        (loss,) = build(**own, **self.other_distance())
        return self.or_zero(call, call.value(loss, weights), loss)

    def of_pairs(self, call: Call, reducer: Any, weights: Tensor | None) -> Tensor:
        """The loss of a miner's pairs, or with a reducer that looks at single pairs."""
        raise NotImplementedError

    def other_distance(self) -> dict[str, Any]:
        return {"normalize": True}


class AngularLoss(_Summed):
    """Angular loss, its mean over positive pairs; as in the peer, negatives keep their norms."""

    needs_labels = True

    def __init__(self, alpha: float = 40, **shared: Any) -> None:
        super().__init__(
            lambda **k: (terms.Angular(alpha, **k),),
            only=is_unit_euclidean(1),
            needs_negatives=True,
            **shared,
        )
        self.alpha = math.radians(alpha)

    def of_pairs(self, call: Call, reducer: Any, weights: Tensor | None) -> Tensor:
        loss, anchors, _ = self._of(call)
        if isinstance(reducer, reducers.PerAnchorReducer):
            raise NotImplementedError("AngularLoss does not take PerAnchorReducer.")
        if weights is not None:
            weights = ops.take(weights, anchors, axis=0)
        return reducing.of_list(loss, weights, reducer)

    def _of(self, call: Call) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """The loss of each positive pair [k], its anchor and its positive."""
        positive, negative = masks(call)
        a, p = np.nonzero(positive)
        a, p = (np.repeat(at, positive[a, p].astype(int)) for at in (a, p))
        if not len(a) or not negative.any():
            return ops.sum(call.x, axis=1)[:0], a[:0], p[:0]
        x, r = (ops.take(unit_rows(rows), at, axis=0) for rows, at in ((call.x, a), (call.r, p)))
        square = math.tan(self.alpha) ** 2
        near = ops.sum(x * r, axis=1, keepdims=True) * (2 * (1 + square))
        logit = (x + r) @ ops.transpose(call.r) * (4 * square) - near
        y, of_references = call.known_labels()  # as there: all negatives, whatever a miner chose
        apart = y[a, None] != of_references
        loss = softplus(log_sum_exp(logit, ops.convert_to_tensor(apart)))
        return ops.where(apart.any(1), loss, ops.zeros_like(loss)), a, p

    def statistics(self, call: Call) -> dict[str, float]:
        """The mean angle at the negatives of all positive pairs, in degrees."""
        y, of_references = call.known_labels()
        apart = y[:, None] != of_references
        positive = masks(call)[0] > 0
        angles = statistics.of_triplet_angles(unit_rows(call.x), call.r, positive, apart)
        return {"average_angle": float(np.degrees(angles.mean())) if len(angles) else 0.0}

    def lists(self, call: Call) -> dict[str, Any]:
        loss, *at = self._of(call)
        indices = tuple(ops.convert_to_tensor(part, dtype="int32") for part in at)
        return {"loss": {"losses": loss, "indices": indices, "reduction_type": "pos_pair"}}


class LiftedStructureLoss(_Summed):
    """Lifted structure loss; see `kinfold.losses.LiftedStructureLoss`.

    With references it is the peer's number, which takes the negatives of a reference from the
    anchor of the same index.
    """

    def __init__(self, neg_margin: float = 1, pos_margin: float = 0, **shared: Any) -> None:
        super().__init__(
            lambda **k: (terms.Lifted(neg_margin, pos_margin, **k),),
            only=lambda distance: not distance.is_inverted,
            needs_negatives=True,
            to_references=lambda **k: (terms.LiftedToReferences(neg_margin, pos_margin, **k),),
            **shared,
        )
        self.neg_margin, self.pos_margin = neg_margin, pos_margin

    def of_pairs(self, call: Call, reducer: Any, weights: Tensor | None) -> Tensor:
        loss, positive = self._matrix(call)
        times = ops.convert_to_tensor(positive, dtype=call.dtype)
        return reducing.of_matrix(loss, times, weights, reducer)

    def _matrix(self, call: Call) -> tuple[Tensor, np.ndarray]:
        """The loss of every pair [n, m], and how often each is an element [n, m]."""
        mat = self.distance.pairwise(call.x, call.r)
        positive, negative = masks(call)
        if not negative.any():
            return mat * 0.0, positive * 0.0
        n, m = positive.shape
        often = ops.convert_to_tensor(np.log(np.maximum(negative, 1)), dtype=call.dtype)
        some = ops.convert_to_tensor(negative > 0)
        own = log_sum_exp(self.distance.margin(self.neg_margin, mat) + often, some)
        own = ops.where(any_in_row(some), own, ops.full_like(own, NONE))
        # As there, the negatives of a reference are those of the anchor of the same index.
        other = ops.pad(own, [[0, max(m - n, 0)]], constant_values=NONE)[:m]
        alone = np.eye(n, m, dtype=bool)  # one and the same, whose negatives count once
        far = ops.where(ops.convert_to_tensor(alone), own[:, None], log_add(own, other))
        far = ops.where(far > NONE / 2, far, ops.zeros_like(far))
        return ops.square(ops.relu(far + self.distance.margin(mat, self.pos_margin))) / 2, positive

    def lists(self, call: Call) -> dict[str, Any]:
        loss, positive = self._matrix(call)
        a, p = np.nonzero(positive)
        a, p = (np.repeat(at, positive[a, p].astype(int)) for at in (a, p))
        at = tuple(ops.convert_to_tensor(part, dtype="int32") for part in (a, p))
        row = ops.take(ops.reshape(loss, (-1,)), at[0] * loss.shape[1] + at[1], axis=0)
        return {"loss": {"losses": row, "indices": at, "reduction_type": "pos_pair"}}

    def other_distance(self) -> dict[str, Any]:
        return {"distance": self.distance}
