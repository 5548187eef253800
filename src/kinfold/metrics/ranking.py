"""Scores of rankings, and how equally far items share their ranks."""

import math
from typing import Any, NamedTuple

import numpy as np

from kinfold.metrics.task import Task

# Items of a row whose smallest is looked at first.
_RUN = 64


def score(
    task: Task, rows: np.ndarray, block: np.ndarray, hits: np.ndarray
) -> dict[str, np.ndarray]:
    """The metrics of queries, [rows] each.

    Args:
        task: what is asked for.
        rows: int [rows], the queries.
        block: float32 [rows, w], the distances of their nearest items, or of all.
        hits: bool [rows, w], which of these are of the query's class.
    """
    relevant = task.relevant[rows]
    limits = {name: relevant if k is None else k for name, (_, k) in task.asked.items()}
    depths = [int(np.max(limits[name])) for name, (kind, _) in task.asked.items() if kind != "mrr"]
    depth = max(depths, default=0)
    ranks = Ranks.of(block, hits, depth) if depth else None
    values = {}
    for name, (kind, k) in task.asked.items():
        if kind == "mrr":
            values[name] = _reciprocal_rank(block, hits, k or block.shape[1])
        elif ranks is not None and kind != "count":
            values[name] = _AT_RANK[kind](ranks, limits[name], relevant)
    return values


class Ranks(NamedTuple):
    """The first ranks of each query and the ties among them: arrays [rows, depth].

    A rank belongs to a group of equally far items, and each of them is equally likely to take it.
    """

    above: np.ndarray  # items ranked before the group
    hits_above: np.ndarray  # those of them that are relevant
    items: np.ndarray  # in the group, beyond the depth too
    hits: np.ndarray  # those of them that are relevant

    @classmethod
    def of(cls, block: np.ndarray, hits: np.ndarray, depth: int) -> "Ranks":
        nearest = smallest(block, depth)
        found = np.take_along_axis(block, nearest, axis=1)
        order = np.argsort(found, axis=1)
        found = np.take_along_axis(found, order, axis=1)
        hit = np.take_along_axis(hits, np.take_along_axis(nearest, order, axis=1), axis=1)
        rank = np.arange(depth)
        new = np.ones(found.shape, bool)
        new[:, 1:] = found[:, 1:] != found[:, :-1]
        above = np.maximum.accumulate(np.where(new, rank, 0), axis=1)
        last = np.ones(found.shape, bool)
        last[:, :-1] = new[:, 1:]
        end = np.minimum.accumulate(np.where(last, rank, depth)[:, ::-1], axis=1)[:, ::-1]
        so_far = np.cumsum(hit, axis=1)
        hits_above = np.take_along_axis(so_far - hit, above, axis=1)
        group_hits = np.take_along_axis(so_far, end, axis=1) - hits_above
        # The group at the last rank may go on beyond the depth.
        tied = block == found[:, -1:]
        final = end == depth - 1
        items = np.where(final, np.count_nonzero(tied, axis=1)[:, None], end + 1 - above)
        group_hits = np.where(final, np.count_nonzero(tied & hits, axis=1)[:, None], group_hits)
        return cls(above, hits_above, items, group_hits)

    def relevance(self) -> np.ndarray:
        """E[rel(i)]."""
        return self.hits / self.items

    def precision_of_hits(self) -> np.ndarray:
        """E[P(i) rel(i)]: rel(i) with itself, with the groups above, with its own group."""
        rank = np.arange(self.items.shape[1])
        own = (rank - self.above) * (self.hits - 1) / np.maximum(self.items - 1, 1)
        return self.relevance() * (1 + self.hits_above + own) / (rank + 1)


def smallest(block: np.ndarray, k: int) -> np.ndarray:
    """Indices [rows, k] of the k smallest of each row of `block` [rows, m], in any order.

    As many runs of a row as there are items wanted hold one each within the largest of their
    minima, so what lies beyond that is passed over once and not sorted.
    """
    rows, m = block.shape
    runs = m // _RUN
    if runs < 2 * k:
        return np.argpartition(block, k - 1, axis=1)[:, :k]
    minima = block[:, : runs * _RUN].reshape(rows, _RUN, runs).min(axis=1)
    within = block <= np.partition(minima, k - 1, axis=1)[:, k - 1 : k]
    counts = np.count_nonzero(within, axis=1)
    if counts.max() > m // 8:  # most are equally far
        return np.argpartition(block, k - 1, axis=1)[:, :k]
    there = np.arange(counts.max()) < counts[:, None]
    indices = np.zeros(there.shape, np.intp)
    indices[there] = np.flatnonzero(within) % m
    values = np.where(there, np.take_along_axis(block, indices, axis=1), np.inf)
    return np.take_along_axis(indices, np.argpartition(values, k - 1, axis=1)[:, :k], axis=1)


def _sum_to(limit: Any, values: np.ndarray) -> np.ndarray:
    """Sum of the first ranks, `limit` being one number for all queries or one each."""
    first = np.arange(values.shape[1]) < np.reshape(limit, (-1, 1))
    return np.where(first, values, 0).sum(axis=1)


def _recall(ranks: Ranks, k: Any, relevant: np.ndarray) -> np.ndarray:
    above, hits_above, items, hits = (part[:, k - 1].tolist() for part in ranks)
    return np.array(
        [
            # Without a hit above: k - a draws, without replacement, from the group of rank k.
            1.0 if h else 1 - math.comb(t - r, k - a) / math.comb(t, k - a)
            for a, h, t, r in zip(above, hits_above, items, hits, strict=True)
        ]
    )


def _precision(ranks: Ranks, k: Any, relevant: np.ndarray) -> np.ndarray:
    return _sum_to(k, ranks.relevance()) / k


def _average_precision(ranks: Ranks, k: Any, relevant: np.ndarray) -> np.ndarray:
    return _sum_to(k, ranks.precision_of_hits()) / np.minimum(relevant, k)


def _average_precision_of_found(ranks: Ranks, k: Any, relevant: np.ndarray) -> np.ndarray:
    found = _sum_to(k, ranks.relevance())
    return _sum_to(k, ranks.precision_of_hits()) / np.where(found > 0, found, 1)


def _ndcg(ranks: Ranks, k: Any, relevant: np.ndarray) -> np.ndarray:
    discount = 1 / np.log2(np.arange(2, ranks.items.shape[1] + 2))
    ideal = np.cumsum(discount)[np.minimum(relevant, k) - 1]
    return _sum_to(k, ranks.relevance() * discount) / ideal


_AT_RANK = {
    "recall": _recall,
    "precision": _precision,
    "map": _average_precision,
    "map_found": _average_precision_of_found,
    "ndcg": _ndcg,
}


def _reciprocal_rank(block: np.ndarray, hits: np.ndarray, k: int) -> np.ndarray:
    nearest = np.where(hits, block, np.inf).min(axis=1, keepdims=True)
    tied = block == nearest
    above = np.count_nonzero(block < nearest, axis=1)
    items = np.count_nonzero(tied, axis=1)
    group_hits = np.count_nonzero(tied & hits, axis=1)
    values = np.where((above < k) & (group_hits > 0), 1 / (above + 1.0), 0.0)
    for i in np.flatnonzero((items > group_hits) & (group_hits > 0)):
        # Chance that the group's first hit is at its place 1, 2, ...: none before, then one.
        t, r = items[i], group_hits[i]
        place = np.arange(1, t - r + 2)
        none_before = np.cumprod(np.append(1.0, 1 - r / (t - place[:-1] + 1)))
        rank = above[i] + place
        values[i] = np.sum(none_before * r / (t - place + 1) * (rank <= k) / rank)
    return values
