"""From labels to the pairs of one block of anchors."""

import keras
from keras import ops

from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row


def are_pairs(labels: Tensor) -> bool:
    """Whether `labels` say of each pair whether it is of one kind: boolean [n, m]."""
    return len(labels.shape) == 2 and keras.backend.standardize_dtype(labels.dtype) == "bool"


def masks(
    labels: Tensor,
    ref_labels: Tensor | None = None,
    ref_mask: Tensor | None = None,
    *,
    rows: Tensor,
    diagonal: bool,
) -> tuple[Tensor, Tensor]:
    """Which references are positives and which are negatives of each anchor of a block.

    positive[i, j] = same[i, j] and not (i is j), negative[i, j] = not same[i, j], where "i is j"
    compares positions: anchor `rows[i]` and reference j.

    Args:
        labels: of the block's anchors, integers [t]; or floating 0 and 1 [t, labels], "same" being
            to share a label; or "same" itself, boolean [t, m].
        ref_labels: integers [m] or floating [m, labels]; None with boolean `labels`.
        ref_mask: boolean [m], the references that count; None means all.
        rows: integers [t], the anchors' positions in the whole batch.
        diagonal: whether an anchor's own position may be a positive of it.

    Returns:
        Two boolean tensors [t, m].
    """
    if ref_labels is None:
        same = labels
    elif len(labels.shape) == 2:
        same = labels @ ops.transpose(ref_labels) > 0
    else:
        same = ops.equal(ops.expand_dims(labels, 1), ops.expand_dims(ref_labels, 0))
    negative = ops.logical_not(same)
    if ref_mask is not None:
        counts = ops.expand_dims(ref_mask, 0)
        same, negative = ops.logical_and(same, counts), ops.logical_and(negative, counts)
    if diagonal:
        return same, negative
    columns = ops.arange(ops.shape(same)[1], dtype=rows.dtype)
    other = ops.not_equal(ops.expand_dims(rows, 1), ops.expand_dims(columns, 0))
    return ops.logical_and(same, other), negative


def valid_anchors(positive: Tensor, negative: Tensor) -> Tensor:
    """Anchors of a block that have at least one positive and one negative: boolean [t]."""
    return ops.logical_and(any_in_row(positive), any_in_row(negative))
