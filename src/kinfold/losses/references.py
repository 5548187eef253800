"""Checks of what a pair loss compares a batch with."""

import warnings
from typing import Any

from keras import ops

from kinfold.core import checks, pairs
from kinfold.core.checks import Tensor


def reference_labels(y: Tensor, ref_labels: Any, r: Tensor, ref_name: str) -> Tensor | None:
    """What tells pairs apart beside `y`: the references' labels, or nothing."""
    if pairs.are_pairs(y):
        if ref_labels is not None:
            raise ValueError(
                "A boolean `y_true` [batch, m] says itself which pairs are of one kind, so "
                "`ref_labels` must be None; for labels [batch, labels] pass integers 0 and 1."
            )
        return None
    ref_y = y if ref_labels is None else checks.supervision(ref_labels, "ref_labels")
    name = "y_true" if ref_labels is None else "ref_labels"
    if len(ref_y.shape) != len(y.shape) or pairs.are_pairs(ref_y):
        raise ValueError(
            "`y_true` and `ref_labels` must both be class ids or both be integers 0 and 1 "
            f"[count, labels]. Received shapes {tuple(y.shape)} and {tuple(ref_y.shape)}."
        )
    if len(y.shape) == 2:
        checks.same_count(y, ref_y, ("y_true", name), axis=1)
    checks.same_count(ref_y, r, (name, ref_name))
    return ref_y


def only(r: Tensor, counts: Tensor) -> Tensor:
    """References [m, d] in which copies of the first that counts replace those that do not.

    A loss that looks at its whole row (for a minimum or a maximum) then never sees those.
    """
    first = ops.logical_and(counts, ops.equal(ops.cumsum(ops.cast(counts, "int32")), 1))
    zero = ops.zeros_like(r)
    one = ops.sum(ops.where(ops.expand_dims(first, 1), r, zero), axis=0, keepdims=True)
    return ops.where(ops.expand_dims(counts, 1), r, one + zero)


def warn_unless_unit(x: Tensor) -> None:
    square = ops.convert_to_numpy(ops.sum(x * x, axis=-1))
    if square.size and abs(square - 1.0).max() > 1e-2:
        warnings.warn(
            "The cosine distance takes embeddings of unit norm, and these have norms from "
            f"{square.min() ** 0.5:.3g} to {square.max() ** 0.5:.3g}. End the model in "
            "kinfold.layers.L2Embedding, or give the loss normalize=True.",
            stacklevel=4,
        )
