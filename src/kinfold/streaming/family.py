"""What a loss of the log-sum-exp family is made of, as one value that roads read.

Such a loss is, for an anchor with positives P and negatives N,

    combine(LSE_{j in P} positive(d_j), LSE_{j in N} negative(d_j))

and some add a statistic of the positives. A loss returns its family, or None; nobody asks which
methods it overrides.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from keras import ops

from kinfold.core.checks import Tensor


class Logit(Protocol):
    """A logit as a function of the distance. Equal ones must be equal and hash alike."""

    @property
    def numbers(self) -> tuple[float, float] | None:
        """Two numbers that a fused kernel takes, the first of which scales the logit; or None."""

    def value(self, distance: Tensor) -> Tensor:
        """The logit, elementwise."""

    def slope(self, distance: Tensor) -> Tensor:
        """Its derivative where gradient flows, elementwise."""

    def in_triton(self) -> tuple[Any, Any]:
        """Value and slope in Triton, each of the distance and the two numbers."""


@dataclass(frozen=True)
class Linear:
    """scale * (distance - at)."""

    scale: float
    at: float = 0.0

    @property
    def numbers(self) -> tuple[float, float]:
        return self.scale, self.at

    def value(self, distance: Tensor) -> Tensor:
        return self.scale * (distance - self.at if self.at else distance)

    def slope(self, distance: Tensor) -> Tensor:
        return ops.full_like(distance, self.scale)

    def in_triton(self) -> tuple[Any, Any]:
        from kinfold.streaming.fused.triton import forward

        return forward.linear_logit, forward.linear_slope


@dataclass(frozen=True)
class Family:
    """The equation of one class of losses.

    Attributes:
        of: the class. A subclass of it may change the equation in any way, so roads take its losses
            only if it returns a family of its own.
        distance: a `Distance`.
        positive: logit of a positive pair.
        negative: logit of a negative pair.
        combine: loss of an anchor from both log-sum-exps [n], and from `extra` where it is not
            "none".
        extra: "none"; "mean", the mean of the positives' logits; or "each", the mean over the
            positives p of softplus(N - p), N being the log-sum-exp over the negatives.
    """

    of: type
    distance: Any
    positive: Logit
    negative: Logit
    combine: Callable[..., Tensor]
    extra: str = "none"

    def combined(self, positive: Tensor, negative: Tensor, extra: Tensor) -> Tensor:
        sums = positive, negative
        return self.combine(*sums) if self.extra == "none" else self.combine(*sums, extra)


def refusal(loss: Any) -> str | None:
    """Why no road may rely on the family of a loss, in a sentence; None where one may."""
    family, kind = loss.family(), type(loss).__name__
    if family is None:
        return f"{kind} is not made of two log-sum-exps; see its `family`."
    if type(loss) is not family.of:
        return (
            f"{kind} is a subclass of {family.of.__name__} and may change its equation; let its "
            f"`family` return one of its own, with `of={kind}`."
        )
    return None
