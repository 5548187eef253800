"""Pairs and triplets that a miner chose, as the peer passes them: tuples of positions.

Four of them are pairs (anchors, positives, anchors, negatives), three are triplets (anchors,
positives, negatives). Anchors are positions in the batch, the others in the references.
"""

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor


class Pairs(NamedTuple):
    """Positive pairs (a1, p) and negative pairs (a2, n), integers [k] each."""

    a1: np.ndarray
    p: np.ndarray
    a2: np.ndarray
    n: np.ndarray


class Triplets(NamedTuple):
    """Triplets (a, p, n), integers [k] each."""

    a: np.ndarray
    p: np.ndarray
    n: np.ndarray


def checked(indices_tuple: Any, anchors: int, references: int) -> Pairs | Triplets:
    """Return what a miner chose as NumPy arrays.

    Raises:
        ValueError: neither three nor four arrays, arrays of other lengths, or positions outside.
    """
    parts = [known(part, "indices_tuple").reshape(-1) for part in indices_tuple]
    if len(parts) not in (3, 4):
        raise ValueError(
            "`indices_tuple` must be (anchors, positives, negatives) or (anchors, positives, "
            f"anchors, negatives). Received {len(parts)} arrays."
        )
    parts = [part.astype("int64") if len(part) else np.zeros(0, "int64") for part in parts]
    groups = (parts,) if len(parts) == 3 else (parts[:2], parts[2:])
    for group in groups:
        lengths = [len(part) for part in group]
        if len(set(lengths)) > 1:
            raise ValueError(f"`indices_tuple` must have arrays of one length. Received {lengths}.")
        for part, size in zip(group, (anchors, *[references] * 2), strict=False):
            if len(part) and not 0 <= part.min() <= part.max() < size:
                raise ValueError(
                    f"`indices_tuple` must hold positions from 0 to {size - 1}. Received "
                    f"{part.min()} to {part.max()}."
                )
    return Triplets(*parts) if len(parts) == 3 else Pairs(*parts)


def numbers(values: Any) -> np.ndarray:
    """Float64 numbers of a tensor, without its gradient; they must be known now."""
    return known(ops.stop_gradient(values), "embeddings").astype("float64")


def known(values: Any, name: str) -> np.ndarray:
    """Return values that must be known now, as NumPy's."""
    if not ops.is_tensor(values):
        return np.asarray(values)
    if not checks.is_concrete(values):
        raise NotImplementedError(
            f"`{name}` must hold numbers that can be looked at, which a compiled step has not. "
            "Compute the loss outside of it, or let the loss choose its pairs, as "
            "kinfold.losses.TripletLoss(negatives='semi-hard') does."
        )
    return np.asarray(ops.convert_to_numpy(values))


def all_pairs(labels: Any, ref_labels: Any) -> Pairs:
    """All pairs of a batch with references, which are the batch itself if both are one object."""
    y = known(labels, "labels").reshape(-1)
    same = y[:, None] == known(ref_labels, "ref_labels").reshape(-1)
    near = same.copy()
    if ref_labels is labels:
        np.fill_diagonal(near, False)
    return Pairs(*np.nonzero(near), *np.nonzero(~same))


def pairs_of(chosen: Pairs | Triplets) -> Pairs:
    """The pairs of triplets, each as often as it is in one."""
    return Pairs(chosen.a, chosen.p, chosen.a, chosen.n) if len(chosen) == 3 else chosen


def triplets_of(chosen: Pairs | Triplets) -> Triplets:
    """The triplets of pairs: every positive pair with every negative pair of its anchor."""
    if len(chosen) == 3:
        return chosen
    a1, p, a2, n = chosen
    order = np.argsort(a2, kind="stable")
    first = np.searchsorted(a2[order], a1, side="left")
    number = np.searchsorted(a2[order], a1, side="right") - first
    which = np.repeat(np.arange(len(a1)), number)
    within = np.arange(len(which)) - np.repeat(np.cumsum(number) - number, number)
    return Triplets(a1[which], p[which], n[order[first[which] + within]])


def without_own(chosen: Pairs | Triplets, at: np.ndarray) -> Pairs | Triplets:
    """What was chosen but the pairs of an anchor with itself, which is reference `at[anchor]`."""
    if len(chosen) == 3:
        kept = at[chosen.a] != chosen.p
        return Triplets(*(part[kept] for part in chosen))
    kept = at[chosen.a1] != chosen.p
    return Pairs(chosen.a1[kept], chosen.p[kept], chosen.a2, chosen.n)


def weights_of(chosen: Pairs | Triplets, size: int, given: bool) -> np.ndarray:
    """How often each example is in what was chosen, over the most often [size]; 1 if nothing is.

    Args:
        given: whether references were given, so that anchors alone are of the batch.
    """
    anchors = (chosen.a,) if len(chosen) == 3 else (chosen.a1, chosen.a2)
    times = np.bincount(np.concatenate(anchors if given else chosen), minlength=size)
    return times / times.max() if times.any() else np.ones(size)


def times(a: np.ndarray, b: np.ndarray, rows: Tensor, columns: Tensor, dtype: str) -> Tensor:
    """How often each pair of a block is in a list of pairs (a, b): [t, m].

    Args:
        rows: which anchors the block holds, floating [t], one after the other.
        columns: which references, floating [m].
    """
    t, m = ops.shape(rows)[0], ops.shape(columns)[0]
    a, b = ops.convert_to_tensor(a, dtype="int32"), ops.convert_to_tensor(b, dtype="int32")
    row, column = a - ops.cast(rows[0], "int32"), b - ops.cast(columns[0], "int32")
    inside = ops.logical_and(
        ops.logical_and(row >= 0, row < t), ops.logical_and(column >= 0, column < m)
    )
    at = ops.where(inside, row * m + column, t * m)
    ones = ops.ones(ops.shape(a), dtype=dtype)
    found = ops.segment_sum(ones, at, num_segments=t * m + 1)
    return ops.reshape(found[:-1], (t, m))
