"""The log-sum-exp family: losses made of two logits and a way to combine two log-sum-exps."""

from typing import Any

from kinfold import streaming
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32, log_sum_exp, transformed
from kinfold.losses.base import PairLoss


class LogSumExpLoss(PairLoss):
    """A pair loss combine(LSE_P(positive_logit(d)), LSE_N(negative_logit(d))), per anchor.

    A subclass defines the three short functions, and the row equation follows from them. With the
    logits' slopes beside them it also takes the faster road over symmetric tiles, where the
    references are the anchors and the distance depends on the dot product alone.
    """

    def positive_logit(self, distance: Tensor) -> Tensor:
        """Logit of a positive pair, elementwise in its distance."""
        raise NotImplementedError

    def negative_logit(self, distance: Tensor) -> Tensor:
        """Logit of a negative pair, elementwise in its distance."""
        raise NotImplementedError

    def positive_slope(self, distance: Tensor) -> Tensor:
        """Derivative of `positive_logit`, where gradient flows, elementwise."""
        raise NotImplementedError

    def negative_slope(self, distance: Tensor) -> Tensor:
        """Derivative of `negative_logit`, where gradient flows, elementwise."""
        raise NotImplementedError

    def combine(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Loss of an anchor from its log-sum-exps over positives and over negatives."""
        raise NotImplementedError

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        of_positive = of_negative = self.positive_logit(distance)
        if type(self).positive_logit is not type(self).negative_logit:
            of_negative = self.negative_logit(distance)
        return self.combine(log_sum_exp(of_positive, positive), log_sum_exp(of_negative, negative))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

        def owner(name: str) -> type:
            return next(base for base in cls.__mro__ if name in vars(base))

        # A slope serves only the logit that it was written beside.
        if "_has_slopes" in vars(cls):
            return
        cls._has_slopes = (
            owner("per_anchor") is LogSumExpLoss
            and owner("of_embeddings") is owner("valid_anchors") is PairLoss
            and all(
                owner(f"{side}_slope") is owner(f"{side}_logit") is not LogSumExpLoss
                for side in ("positive", "negative")
            )
        )

    _has_slopes = False

    def _faster(
        self, x: Tensor, r: Tensor, anchors: Any, references: Any
    ) -> tuple[Tensor, Tensor] | None:
        found = super()._faster(x, r, anchors, references)
        if found is None and self._by_tiles(x, r, anchors, references):
            return self._tiles(x, anchors)
        return found

    def _by_tiles(self, x: Tensor, r: Tensor, anchors: Any, references: Any) -> bool:
        y, *_ = anchors
        # The tiles know of labels alone: no mask of references, no transform of torch.func.
        ids = len(references) == 1 and references[0] is y and len(y.shape) == 1
        known = self._has_slopes and hasattr(self.distance, "of_dot")
        return r is x and ids and known and x.shape[0] != 0 and not transformed()

    def _tiles(self, x: Tensor, anchors: Any) -> tuple[Tensor, Tensor]:
        return streaming.symmetric(
            self, at_least_float32(x), anchors[0], not self.remove_diagonal, self.block_size
        )
