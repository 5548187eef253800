"""The log-sum-exp family: losses made of two logits and a way to combine two log-sum-exps."""

from kinfold.core.checks import Tensor
from kinfold.core.numerics import log_sum_exp
from kinfold.losses.base import PairLoss
from kinfold.streaming.family import Logit


class LogSumExpLoss(PairLoss):
    """A pair loss combine(LSE_P(positive_logit(d)), LSE_N(negative_logit(d))), per anchor.

    A subclass defines the three short functions, and the row equation follows from them. Or it
    defines `logits` (both logits with their slopes) and `combine`. Then it can also return a
    `family` and take the faster roads: see `kinfold.streaming.explain`.

    The arguments are those of `PairLoss`.

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import LogSumExpLoss
    >>> from kinfold.streaming import Family, Linear
    >>> class PullAndPush(LogSumExpLoss):
    ...     def logits(self):
    ...         return Linear(4.0, at=0.2), Linear(-4.0, at=0.8)
    ...     def combine(self, positive, negative):
    ...         return ops.relu(positive) + ops.relu(negative)
    ...     def family(self):
    ...         return Family(PullAndPush, self.distance, *self.logits(), self.combine)
    >>> x = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6]], "float32")
    >>> print(f"{float(PullAndPush()(np.array([0, 0, 1]), x)):.4f}")
    3.5200
    """

    def logits(self) -> tuple[Logit, Logit]:
        """Logits of positive and of negative pairs, with their slopes."""
        raise NotImplementedError

    def positive_logit(self, distance: Tensor) -> Tensor:
        """Logit of a positive pair, elementwise in its distance."""
        return self.logits()[0].value(distance)

    def negative_logit(self, distance: Tensor) -> Tensor:
        """Logit of a negative pair, elementwise in its distance."""
        return self.logits()[1].value(distance)

    def combine(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Loss of an anchor from its log-sum-exps over positives and over negatives."""
        raise NotImplementedError

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        of_positive = of_negative = self.positive_logit(distance)
        if type(self).positive_logit is not type(self).negative_logit:
            of_negative = self.negative_logit(distance)
        return self.combine(log_sum_exp(of_positive, positive), log_sum_exp(of_negative, negative))
