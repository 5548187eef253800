"""Supervised contrastive loss."""

from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import divide, log_sum_exp, softplus
from kinfold.core.pairs import are_pairs
from kinfold.losses.base import PairLoss
from kinfold.streaming import Family, Linear, Problem


@keras.saving.register_keras_serializable("kinfold")
class SupConLoss(PairLoss):
    """Supervised contrastive loss: a softmax over all pairs of an anchor, averaged over positives.

    With the distance d (a similarity counts as -d), for an anchor with positives P and negatives N:

        mean_P d / temperature + LSE_{P and N}(-d / temperature)

    With `graded=True` and several labels per example, the mean over positives is weighted by how
    many of their labels an anchor and a positive share: |A and B| / |A or B|, so that two examples
    that share one label of many pull each other less.

    Args:
        temperature: scale of the distances, greater than 0.
        graded: whether positives count by their share of common labels; `y_true` must then be
            integers 0 and 1 [batch, labels].

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: the temperature is not a number.
        ValueError: temperature <= 0, an unknown distance or reduction; with `graded`, labels of
            another form, or a memory.

    Reference:
        Khosla et al., Supervised Contrastive Learning, NeurIPS 2020 (its L_out),
        https://arxiv.org/abs/2004.11362

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import SupConLoss
    >>> x = np.array([[1, 0], [0.8, 0.6], [0, 1]], "float32")
    >>> print(f"{float(SupConLoss(temperature=0.5)(np.array([0, 0, 1]), x)):.4f}")
    0.3485
    """

    def __init__(
        self,
        temperature: float = 0.1,
        distance: Any = "cosine",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "sup_con_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
        graded: bool = False,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)
        self.temperature = checks.number(temperature, "temperature", above=0.0)
        self.graded = bool(graded)

    def problem(self, *args: Any, **kwargs: Any) -> Problem:
        problem = super().problem(*args, **kwargs)
        if not self.graded:
            return problem
        if problem.of_class_ids or are_pairs(problem.labels):
            raise ValueError(
                "SupConLoss(graded=True) weighs positives by the labels that they share, so "
                "`y_true` must be integers 0 and 1 [batch, labels]. Received shape "
                f"{tuple(problem.labels.shape)} of {problem.labels.dtype}."
            )
        parts = (part._replace(extra=(part.labels,)) for part in problem.parts)
        return problem._replace(extra=(problem.labels,), parts=tuple(parts))

    def per_anchor(
        self, distance: Tensor, positive: Tensor, negative: Tensor, *extra: Tensor
    ) -> Any:
        logit = self.closeness(distance) / self.temperature
        every = log_sum_exp(logit, ops.logical_or(positive, negative))
        # The differences are added up, not the logits, which may be large where these are not.
        apart = ops.where(positive, ops.expand_dims(every, 1) - logit, ops.zeros_like(logit))
        share = ops.cast(positive, logit.dtype)
        if extra:
            share = share * ops.cast(_common(*extra), logit.dtype)
            apart = apart * share
        return divide(ops.sum(apart, axis=1), ops.sum(share, axis=1))

    def family(self) -> Family | None:
        if self.graded:
            return None
        logit = Linear((1.0 if self.distance.similarity else -1.0) / self.temperature)
        return Family(SupConLoss, self.distance, logit, logit, _less_the_mean, extra="mean")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature, "graded": self.graded}


def _common(labels: Tensor, ref_labels: Tensor) -> Tensor:
    """|A and B| / |A or B| of the labels 0 and 1 of each pair [t, m]; 0 where there is none."""
    both = labels @ ops.transpose(ref_labels)
    own, other = ops.sum(labels, axis=1), ops.sum(ref_labels, axis=1)
    return divide(both, ops.expand_dims(own, 1) + ops.expand_dims(other, 0) - both)


def _less_the_mean(positive: Tensor, negative: Tensor, mean: Tensor) -> Tensor:
    """The log-sum-exp over positives and negatives, less the mean over positives."""
    return negative + softplus(positive - negative) - mean
