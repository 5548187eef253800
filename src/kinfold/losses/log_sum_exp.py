"""The log-sum-exp family: losses made of two logits and a way to combine two log-sum-exps."""

from kinfold.checks import Tensor
from kinfold.losses.base import PairLoss
from kinfold.numerics import log_sum_exp


class LogSumExpLoss(PairLoss):
    """A pair loss combine(LSE_P(positive_logit(d)), LSE_N(negative_logit(d))), per anchor.

    A subclass defines the three short functions; the row equation follows from them.
    """

    def positive_logit(self, distance: Tensor) -> Tensor:
        """Logit of a positive pair, elementwise in its distance."""
        raise NotImplementedError

    def negative_logit(self, distance: Tensor) -> Tensor:
        """Logit of a negative pair, elementwise in its distance."""
        raise NotImplementedError

    def combine(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Loss of an anchor from its log-sum-exps over positives and over negatives."""
        raise NotImplementedError

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return self.combine(
            log_sum_exp(self.positive_logit(distance), positive),
            log_sum_exp(self.negative_logit(distance), negative),
        )
