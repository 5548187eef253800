"""Circle loss."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from kinfold import distances
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import softplus
from kinfold.losses.cache import cached_loss
from kinfold.losses.log_sum_exp import LogSumExpLoss
from kinfold.streaming import Family


@dataclass(frozen=True)
class CircleLogit:
    """gamma * relu(margin + d) * (d - margin), or for negatives, with 1 - d in place of d."""

    positive: bool
    gamma: float
    margin: float
    detach: bool

    # A new tensor that is then changed in place: on torch each pass over memory counts.

    def value(self, distance: Tensor) -> Tensor:
        logit = distance - self.margin if self.positive else (1.0 - self.margin) - distance
        weight = ops.relu(self._gap(distance))
        logit *= ops.stop_gradient(weight) if self.detach else weight
        logit *= self.gamma
        return logit

    def slope(self, distance: Tensor) -> Tensor:
        gap = ops.relu(self._gap(distance))
        if self.detach:
            return gap * (self.gamma if self.positive else -self.gamma)
        slope = ops.sign(gap)
        slope *= distance if self.positive else distance - 1.0
        slope *= 2.0 * self.gamma
        return slope

    def _gap(self, distance: Tensor) -> Tensor:
        return self.margin + distance if self.positive else (1.0 + self.margin) - distance

    @property
    def numbers(self) -> tuple[float, float]:
        return self.gamma, self.margin

    def in_triton(self) -> tuple[Any, Any]:
        from kinfold.losses import circle_triton

        return circle_triton.functions(self.positive, self.detach)


@keras.saving.register_keras_serializable("kinfold")
class CircleLoss(LogSumExpLoss):
    """Circle loss: pulls positives in and pushes negatives out, each at its own pace.

    With the distance d, for an anchor with positives P and negatives N:

        softplus(LSE_P(gamma * relu(margin + d) * (d - margin))
                 + LSE_N(gamma * relu(1 + margin - d) * (1 - margin - d)))

    The value and the gradient are those of `keras.losses.Circle`; with `detach_weights=True` the
    gradient is the paper's (and pytorch-metric-learning's), which treats relu(...) as constants.

    Args:
        gamma: scale of the logits, greater than 0.
        margin: the relaxation; positives are pulled below it and negatives pushed above
            1 - margin, in units of the distance.
        distance: a name, instance or config; see `kinfold.distances.get`. "cosine" takes
            embeddings of unit norm.
        detach_weights: whether no gradient flows through the relu(...) weights.

    The other arguments are those of `PairLoss`.

    Raises:
        ValueError: gamma <= 0, an unknown distance or reduction.
        TypeError: gamma or margin is not a number.

    Reference:
        Sun et al., Circle Loss: A Unified Perspective of Pair Similarity Optimization,
        CVPR 2020, https://arxiv.org/abs/2002.10857

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import CircleLoss
    >>> x = np.array([[1, 0], [0.8, 0.6], [0, 1], [-0.6, 0.8]], "float32")
    >>> y = np.array([3, 3, 16777216, 16777217])
    >>> print(f"{float(CircleLoss(gamma=10.0)(y, x)):.4f}")
    0.7494
    """

    def __init__(
        self,
        gamma: float = 80.0,
        margin: float = 0.4,
        distance: Any = "cosine",
        remove_diagonal: bool = True,
        detach_weights: bool = False,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "circle_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)
        self.gamma = checks.number(gamma, "gamma", above=0.0)
        self.margin = checks.number(margin, "margin")
        self.detach_weights = bool(detach_weights)

    def family(self) -> Family:
        return Family(CircleLoss, self.distance, *self.logits(), self.combine)

    def logits(self) -> tuple[CircleLogit, CircleLogit]:
        numbers = self.gamma, self.margin, self.detach_weights
        return CircleLogit(True, *numbers), CircleLogit(False, *numbers)

    def combine(self, positive: Tensor, negative: Tensor) -> Tensor:
        return softplus(positive + negative)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "gamma": self.gamma,
            "margin": self.margin,
            "detach_weights": self.detach_weights,
        }


def circle_loss(
    y_true: Any,
    y_pred: Any,
    ref_labels: Any = None,
    ref_embeddings: Any = None,
    remove_diagonal: bool = True,
    gamma: float = 80.0,
    margin: float = 0.4,
    distance: Any = "cosine",
    detach_weights: bool = False,
    normalize: bool = False,
    block_size: int | None = None,
) -> Tensor:
    """Compute the circle loss of each anchor; see `CircleLoss` for the equation.

    Args:
        y_true: integer class ids [batch] or [batch, 1].
        y_pred: embeddings [batch, d], of unit norm for the cosine distance.
        ref_labels: class ids [m] of the references; None means `y_true`.
        ref_embeddings: references [m, d]; None means `y_pred`.
        remove_diagonal: whether an anchor's positives leave out the reference at its own position.
        gamma: scale of the logits, greater than 0.
        margin: the relaxation, in units of the distance.
        distance: a name, instance or config; see `kinfold.distances.get`.
        detach_weights: whether no gradient flows through the relu(...) weights.
        normalize: whether to scale embeddings and references to unit norm first.
        block_size: see `PairLoss`.

    Returns:
        Floating [batch], 0 for anchors without positives or without negatives; float64 for float64
        embeddings, else float32.

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import circle_loss
    >>> x = np.array([[1, 0], [0.8, 0.6], [0, 1]], "float32")
    >>> ops.convert_to_numpy(circle_loss(np.array([0, 0, 1]), x, gamma=10.0)).round(3)
    array([0.059, 1.171, 0.   ], dtype=float32)
    """
    loss = cached_loss(
        CircleLoss,
        checks.number(gamma, "gamma"),
        checks.number(margin, "margin"),
        distances.get(distance),
        bool(remove_diagonal),
        bool(detach_weights),
        checks.block_size(block_size),
        dtype=checks.compute_dtype(y_pred),
        normalize=bool(normalize),
    )
    return loss.call(y_true, y_pred, ref_labels, ref_embeddings)
