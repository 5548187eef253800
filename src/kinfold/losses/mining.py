"""Which positive and which negative of each anchor a loss takes, by their positions [t]."""

from keras import ops

from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row


def of_positives(which: str, d: Tensor, positive: Tensor) -> Tensor:
    """The furthest ("hard") or nearest ("easy") positive."""
    return _furthest(d, positive) if which == "hard" else _nearest(d, positive)


def of_negatives(which: str, d: Tensor, negative: Tensor, beyond: Tensor) -> Tensor:
    """The nearest ("hard"), the furthest ("easy"), or the nearest beyond [t] ("semi-hard")."""
    if which == "hard":
        return _nearest(d, negative)
    furthest = _furthest(d, negative)
    if which == "easy":
        return furthest
    outside = ops.logical_and(negative, d > ops.expand_dims(beyond, 1))
    return ops.where(any_in_row(outside), _nearest(d, outside), furthest)


def at(d: Tensor, position: Tensor) -> Tensor:
    """d [t, m] at one position of each row: [t]."""
    return ops.squeeze(ops.take_along_axis(d, ops.expand_dims(position, 1), axis=1), axis=1)


def is_at(position: Tensor, like: Tensor) -> Tensor:
    """Boolean [t, m], true at one position of each row."""
    columns = ops.arange(ops.shape(like)[1], dtype=position.dtype)
    return ops.equal(ops.expand_dims(columns, 0), ops.expand_dims(position, 1))


def _nearest(d: Tensor, mask: Tensor) -> Tensor:
    return ops.argmin(ops.where(mask, d, ops.full_like(d, float("inf"))), axis=1)


def _furthest(d: Tensor, mask: Tensor) -> Tensor:
    return ops.argmax(ops.where(mask, d, ops.full_like(d, -float("inf"))), axis=1)
