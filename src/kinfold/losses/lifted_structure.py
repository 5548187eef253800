"""Lifted structure losses, over both ends of a positive pair and the generalised one."""

from typing import Any

import keras
from keras import ops

from kinfold import streaming
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row, at_least_float32, log_sum_exp
from kinfold.losses.base import PairLoss
from kinfold.losses.log_sum_exp import LogSumExpLoss
from kinfold.streaming import Fused

NONE = -1e30  # the log-sum-exp of no negatives; an infinity would meet a gradient


@keras.saving.register_keras_serializable("kinfold")
class LiftedStructureLoss(PairLoss):
    """Lifted structure loss: lifts each positive pair over the negatives of both of its ends.

    With the distance d, over the positive pairs (i, j), the mean of

        relu(log(sum_{n in N_i} exp(negative_margin - d_in) + sum_{n in N_j} exp(negative_margin
             - d_jn)) + d_ij - positive_margin)^2 / 2

    The negatives of both ends are taken among the references. A mean is over pairs, and without
    reduction the loss of an anchor is the sum over its pairs.

    Args:
        negative_margin: distance that negatives are pushed to.
        positive_margin: distance that positives are pulled to.
        distance: a name, instance or config; see `kinfold.distances.get`.
        remove_diagonal: whether the reference at an anchor's own position is no positive of it.
        block_size: see `PairLoss`.
        reduction: see `PairLoss`.
        name: optional name of the loss.
        dtype: dtype of the computation; None means `keras.config.floatx()`.
        normalize: whether to scale embeddings and references to unit norm first.

    Raises:
        TypeError: a margin is not a number.
        ValueError: an unknown distance or reduction, or a similarity as the distance.

    Reference:
        Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016,
        https://arxiv.org/abs/1511.06452

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import LiftedStructureLoss
    >>> x = np.array([[0, 0], [3, 4], [0, 1]], "float32")
    >>> print(f"{float(LiftedStructureLoss()(np.array([0, 0, 1]), x)):.4f}")
    12.6923
    """

    def __init__(
        self,
        negative_margin: float = 1.0,
        positive_margin: float = 0.0,
        distance: Any = "euclidean",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "lifted_structure_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
    ) -> None:
        super().__init__(distance, remove_diagonal, normalize, block_size, reduction, name, dtype)
        self.refuse_similarity()
        self.negative_margin = checks.number(negative_margin, "negative_margin")
        self.positive_margin = checks.number(positive_margin, "positive_margin")

    def _pairs(self, *args: Any) -> Any:
        # Each embedding takes the log-sum-exp over its own negatives along as one more column, so
        # that gradients reach it from both ends of a pair.
        x, r, (y, positions), references = super()._pairs(*args)
        if not references:
            raise ValueError(
                "LiftedStructureLoss needs the negatives of the references too, which a boolean "
                "`y_true` [batch, m] does not tell. Pass class ids, or integers 0 and 1."
            )
        with_own = self._with_negatives(x, r, (y, positions), references)
        if r is x:
            return with_own, with_own, (y, positions), references
        at = ops.arange(ops.shape(r)[0], dtype="int32")
        own = self._with_negatives(r, r, (references[0], at), references)
        return with_own, own, (y, positions), references

    def _with_negatives(self, x: Tensor, r: Tensor, anchors: Any, references: Any) -> Tensor:
        negatives, _ = streaming.per_anchor(
            self._negatives, x, r, anchors, references, **self._streaming(x)
        )
        return ops.concatenate([at_least_float32(x), ops.expand_dims(negatives, 1)], axis=1)

    def _negatives(
        self, x: Tensor, r: Tensor, y: Tensor, positions: Tensor, *references: Tensor
    ) -> tuple[Tensor, Tensor]:
        x, r = at_least_float32(x), at_least_float32(r)
        _, negative = self._masks(y, positions, *references)
        some = any_in_row(negative)
        rows = log_sum_exp(self.negative_margin - self.distance(x, r), negative)
        return ops.where(some, rows, ops.full_like(rows, NONE)), some

    def of_embeddings(self, x: Tensor, r: Tensor, positive: Tensor, negative: Tensor) -> Any:
        d = self.distance(x[:, :-1], r[:, :-1])
        i, j = ops.expand_dims(x[:, -1], 1), ops.expand_dims(r[:, -1], 0)
        largest = ops.stop_gradient(ops.where(i > j, i, j))
        both = largest + ops.log(ops.exp(i - largest) + ops.exp(j - largest))
        pair = ops.square(ops.relu(both + d - self.positive_margin)) / 2.0
        total = ops.sum(ops.where(positive, pair, ops.zeros_like(pair)), axis=1)
        return total, ops.sum(ops.cast(positive, d.dtype), axis=1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "negative_margin": self.negative_margin,
            "positive_margin": self.positive_margin,
        }


@keras.saving.register_keras_serializable("kinfold")
class GeneralizedLiftedStructureLoss(LogSumExpLoss):
    """Generalised lifted structure loss, over the positives and negatives of one anchor.

    With the distance d, for an anchor with positives P and negatives N:

        relu(LSE_P(d - positive_margin) + LSE_N(negative_margin - d))

    Args:
        negative_margin: distance that negatives are pushed to.
        positive_margin: distance that positives are pulled to.
        distance: a name, instance or config; see `kinfold.distances.get`.
        remove_diagonal: whether the reference at an anchor's own position is no positive of it.
        block_size: see `PairLoss`.
        reduction: see `PairLoss`.
        name: optional name of the loss.
        dtype: dtype of the computation; None means `keras.config.floatx()`.
        normalize: whether to scale embeddings and references to unit norm first.

    Raises:
        TypeError: a margin is not a number.
        ValueError: an unknown distance or reduction, or a similarity as the distance.

    Reference:
        Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017,
        https://arxiv.org/abs/1703.07737

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import GeneralizedLiftedStructureLoss
    >>> x = np.array([[0, 0], [3, 4], [0, 1]], "float32")
    >>> print(f"{float(GeneralizedLiftedStructureLoss()(np.array([0, 0, 1]), x)):.4f}")
    3.3787
    """

    def __init__(
        self,
        negative_margin: float = 1.0,
        positive_margin: float = 0.0,
        distance: Any = "euclidean",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "generalized_lifted_structure_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
    ) -> None:
        super().__init__(distance, remove_diagonal, normalize, block_size, reduction, name, dtype)
        self.refuse_similarity()
        self.negative_margin = checks.number(negative_margin, "negative_margin")
        self.positive_margin = checks.number(positive_margin, "positive_margin")

    def positive_logit(self, distance: Tensor) -> Tensor:
        return distance - self.positive_margin

    def negative_logit(self, distance: Tensor) -> Tensor:
        return self.negative_margin - distance

    def positive_slope(self, distance: Tensor) -> Tensor:
        return ops.ones_like(distance)

    def negative_slope(self, distance: Tensor) -> Tensor:
        return -ops.ones_like(distance)

    def combine(self, positive: Tensor, negative: Tensor) -> Tensor:
        return ops.relu(positive + negative)

    def fused(self) -> Fused:
        positive, negative = (1.0, self.positive_margin), (-1.0, self.negative_margin)
        return Fused(positive, negative, lambda p, n, _: self.combine(p, n))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "negative_margin": self.negative_margin,
            "positive_margin": self.positive_margin,
        }
