"""Soft ranks: how many references lie before each positive of an anchor."""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from kinfold import streaming
from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row


def over_positives(
    term: Callable[[Tensor, Tensor], Tensor],
    closeness: Tensor,
    positive: Tensor,
    negative: Tensor,
    temperature: float,
) -> Tensor:
    """Sum over the positives of each anchor, one after the other, so that memory stays [t, m].

    With s the closeness, `term` takes how many other positives, and how many negatives, lie before
    a positive p: sum of sigmoid((s - s_p) / temperature), floating [t] each.

    Args:
        term: a hashable function.
        closeness: floating [t, m], larger for what is nearer.
        positive: boolean [t, m].
        negative: boolean [t, m].
        temperature: of the sigmoid, in units of the closeness.

    Returns:
        Floating [t].
    """
    turn = ops.cumsum(ops.cast(positive, "int32"), axis=1)
    kth: Any = _Kth(term, temperature)
    return streaming.repeated(kth, ops.max(turn), (closeness,), (turn, positive, negative))


class _Kth(NamedTuple):
    """The term of the k-th positive of each anchor."""

    term: Callable[[Tensor, Tensor], Tensor]
    temperature: float

    def __call__(
        self, k: Tensor, s: Tensor, turn: Tensor, positive: Tensor, negative: Tensor
    ) -> Tensor:
        zero = ops.zeros_like(s)
        is_p = ops.logical_and(positive, ops.equal(turn, k + 1))
        own = ops.sum(ops.where(is_p, s, zero), axis=1, keepdims=True)
        before = ops.sigmoid((s - own) / self.temperature)
        others = ops.logical_and(positive, ops.logical_not(is_p))
        positives, negatives = (
            ops.sum(ops.where(mask, before, zero), axis=1) for mask in (others, negative)
        )
        found = self.term(positives, negatives)
        return ops.where(any_in_row(is_p), found, ops.zeros_like(found))
