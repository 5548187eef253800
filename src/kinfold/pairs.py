"""From integer labels to the pairs of one block of anchors."""

from keras import ops

from kinfold.checks import Tensor


def masks(
    labels: Tensor, ref_labels: Tensor, rows: Tensor, remove_diagonal: bool
) -> tuple[Tensor, Tensor]:
    """Which references are positives and which are negatives of each anchor of a block.

    positive[i, j] = (label_i == label_j) and not (i is j), negative[i, j] = (label_i != label_j),
    where "i is j" compares positions: anchor `rows[i]` and reference j.

    Args:
        labels: integers [t], of the block's anchors.
        ref_labels: integers [m].
        rows: integers [t], the anchors' positions in the whole batch.
        remove_diagonal: whether an anchor's own position is no positive of it.

    Returns:
        Two boolean tensors [t, m].
    """
    same = ops.equal(ops.expand_dims(labels, 1), ops.expand_dims(ref_labels, 0))
    negative = ops.logical_not(same)
    if not remove_diagonal:
        return same, negative
    columns = ops.arange(ops.shape(ref_labels)[0], dtype=rows.dtype)
    other = ops.not_equal(ops.expand_dims(rows, 1), ops.expand_dims(columns, 0))
    return ops.logical_and(same, other), negative


def valid_anchors(positive: Tensor, negative: Tensor) -> Tensor:
    """Anchors of a block that have at least one positive and one negative: boolean [t]."""
    return ops.logical_and(ops.any(positive, axis=1), ops.any(negative, axis=1))
