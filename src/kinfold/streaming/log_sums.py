"""log(sum exp) in parts that blocks of logits are added up in."""

from typing import NamedTuple

from keras import ops

from kinfold.core.checks import Tensor
from kinfold.core.numerics import divide


class LogSum(NamedTuple):
    """log(sum exp) of some logits, kept apart so that large ones lose no digits to the log."""

    largest: Tensor  # -inf where there are none
    total: Tensor  # of exp(logit - largest)

    def value(self) -> Tensor:
        return self.largest + ops.log(self.total)

    def merged(self, other: "LogSum") -> "LogSum":
        """With the logits of another."""
        largest = ops.where(self.largest > other.largest, self.largest, other.largest)
        at = finite(largest)
        total = self.total * ops.exp(self.largest - at) + other.total * ops.exp(other.largest - at)
        return LogSum(largest, total)


def log_sum(logits: Tensor, axis: int) -> LogSum:
    """Of logits along an axis, -inf where there is none; no gradient goes through here."""
    largest = ops.max(logits, axis=axis, keepdims=True)
    total = ops.sum(ops.exp(logits - finite(largest)), axis=axis)
    return LogSum(ops.squeeze(largest, axis=axis), total)


def shares(logits: Tensor, of: LogSum, g: Tensor) -> Tensor:
    """Gradient of `sum(g * of.value())` with respect to logits [n, b] that are among it."""
    weight = divide(g, of.total)
    return ops.exp(logits - ops.expand_dims(finite(of.largest), 1)) * ops.expand_dims(weight, 1)


def finite(largest: Tensor) -> Tensor:
    """`largest`, 0 where there is no logit."""
    return ops.where(largest > -float("inf"), largest, ops.zeros_like(largest))
