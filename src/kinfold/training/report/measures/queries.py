"""Queries and their neighbours: recall, the choice of queries to show, confused classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kinfold.metrics.retrieval import neighbours, retrieval_metrics

RECALLS = (1, 2, 4, 8, 16, 32)
SHOWN = 8  # neighbours of a query in the gallery
VOTERS = 10  # neighbours that say whether a label is likely wrong
DEEPEST = 100  # a class with more images than this is judged on its first 100 neighbours


@dataclass(frozen=True)
class Query:
    """A query of the gallery with its nearest neighbours."""

    index: int
    neighbours: np.ndarray  # int [k], nearest first
    similarities: np.ndarray  # float [k]
    right: np.ndarray  # bool [k]
    found: int  # of the same class among the first `relevant` neighbours
    relevant: int  # others of its class, at most DEEPEST

    @property
    def states(self) -> list[str]:
        """For each neighbour "right", "wrong", or "over" where nothing was left to find."""
        before = np.cumsum(self.right) - self.right
        return [
            "right" if right else "over" if seen >= self.relevant else "wrong"
            for right, seen in zip(self.right, before, strict=True)
        ]


@dataclass(frozen=True)
class Group:
    """Queries that were chosen by one rule, said in `rule`."""

    title: str
    rule: str
    queries: list[Query]


def class_sizes(y: np.ndarray) -> np.ndarray:
    """[n]: how many examples the class of each example has."""
    _, inverse, counts = np.unique(y, return_inverse=True, return_counts=True)
    return counts[inverse.reshape(-1)]


def recall_curve(vectors: np.ndarray, y: np.ndarray) -> dict[int, float]:
    """recall@k for every k the set is large enough for; empty where no query can be right."""
    allowed = [k for k in RECALLS if k < len(y)]
    if not allowed or not (class_sizes(y) > 1).any():
        return {}
    # Asking for the number of queries left out silences the warning: the page says it.
    metrics = (*(f"recall@{k}" for k in allowed), "queries_without_match")
    values = retrieval_metrics(vectors, y, metrics=metrics)
    return {k: values[f"recall@{k}"] for k in allowed}


@dataclass(frozen=True)
class Neighbourhood:
    """The nearest neighbours of every example, found once for all sections."""

    y: np.ndarray  # int [n]
    relevant: np.ndarray  # int [n]: others of its class, at most DEEPEST
    indices: np.ndarray  # int [n, k], nearest first
    similarities: np.ndarray  # float [n, k], cosine

    @classmethod
    def of(cls, vectors: np.ndarray, y: np.ndarray) -> Neighbourhood:
        relevant = np.minimum(class_sizes(y) - 1, DEEPEST)
        k = int(min(len(y) - 1, max(SHOWN, VOTERS, relevant.max())))
        if not k:
            nothing = np.empty((len(y), 0))
            return cls(y, relevant, nothing.astype(np.int64), nothing)
        indices, distances = neighbours(vectors, k)
        return cls(y, relevant, indices, 1.0 - distances)

    @property
    def right(self) -> np.ndarray:
        """bool [n, k]: which neighbours are of the class of their query."""
        return self.y[self.indices] == self.y[:, None]

    @property
    def queries(self) -> np.ndarray:
        """int [q]: the examples that have another one of their class to find."""
        return np.flatnonzero(self.relevant > 0)


def gallery(near: Neighbourhood, sizes: tuple[int, int, int] = (6, 8, 3)) -> list[Group]:
    """Some typical, the worst and some good queries; no class and no confusion twice in a group."""
    valid = near.queries
    if not len(valid):
        return []
    y, relevant, indices, right = near.y, near.relevant, near.indices, near.right
    found = (right & (np.arange(right.shape[1]) < relevant[:, None])).sum(axis=1)
    share = found / np.maximum(relevant, 1)
    median = float(np.median(share[valid]))
    best = float(share[valid].max())
    shuffled = np.random.default_rng(0).permutation(valid)

    used: set[int] = set()

    def take(candidates: np.ndarray, count: int) -> list[Query]:
        chosen: list[Query] = []
        classes: set[int] = set()
        confusions: set[frozenset[int]] = set()
        for i in (int(i) for i in candidates):
            if len(chosen) == count:
                break
            pair = frozenset((int(y[i]), int(y[indices[i, 0]])))
            if i in used or int(y[i]) in classes or pair in confusions:
                continue
            used.add(i)
            classes.add(int(y[i]))
            confusions.add(pair)
            first = slice(0, SHOWN)
            chosen.append(
                Query(
                    index=i,
                    neighbours=indices[i, first],
                    similarities=near.similarities[i, first],
                    right=right[i, first],
                    found=int(found[i]),
                    relevant=int(relevant[i]),
                )
            )
        return chosen

    # Fewest right first; among equals the wrong first neighbour that the model is surest of.
    worst = valid[np.lexsort((-near.similarities[valid, 0], right[valid, 0], share[valid]))]
    worst = worst[share[worst] < 1]
    typical = shuffled[np.argsort(np.abs(share[shuffled] - median), kind="stable")]
    good = shuffled[share[shuffled] == best] if best > median else shuffled[:0]
    none = int((found[valid] == 0).sum())
    # The worst are chosen first, so that they are the worst of all; typical ones are shown first.
    worst_queries = take(worst, sizes[1])
    groups = [
        Group(
            "Typical",
            f"Drawn at random from the queries nearest to the median share, {median:.0%}"
            + ("." if best > median else ", which is also the highest."),
            take(typical, sizes[0]),
        ),
        Group(
            "Worst",
            "The queries with the smallest share of right answers. Equal shares are ordered by how "
            "similar the wrong first neighbour is. Each class, and each pair of confused classes, "
            f"is shown once. Queries without any right answer: {none:,} of {len(valid):,}.",
            worst_queries,
        ),
        Group(
            "Good",
            f"Drawn at random from the queries with the highest share, {best:.0%}, which "
            f"{len(good):,} of {len(valid):,} queries reach.",
            take(good, sizes[2]),
        ),
    ]
    return [group for group in groups if group.queries]


@dataclass(frozen=True)
class Confusion:
    """Two classes, and how many queries of each have their nearest neighbour in the other."""

    classes: tuple[int, int]  # the one with more wrong queries first
    wrong: tuple[int, int]  # queries of each class
    queries: tuple[int, int]  # in all
    example: tuple[int, int]  # the most similar such pair, an example of each class


def confusions(near: Neighbourhood, limit: int = 12) -> list[Confusion]:
    """The pairs of classes with the most queries whose nearest neighbour is of the other class."""
    asked = near.queries
    if not len(asked):
        return []
    asked = asked[~near.right[asked, 0]]
    pairs: dict[tuple[int, int], list[int]] = {}
    for i in asked[np.argsort(-near.similarities[asked, 0], kind="stable")].tolist():
        a, b = int(near.y[i]), int(near.y[near.indices[i, 0]])
        pairs.setdefault((min(a, b), max(a, b)), []).append(i)
    ids, counts = np.unique(near.y, return_counts=True)
    size = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    order = sorted(pairs, key=lambda p: (-len(pairs[p]), size[p[0]] + size[p[1]], p))
    out = []
    for pair in order[:limit]:
        members = pairs[pair]
        own = [int(near.y[i]) for i in members]
        first, second = sorted(pair, key=lambda label: (-own.count(label), label))
        nearest = (members[0], int(near.indices[members[0], 0]))
        out.append(
            Confusion(
                classes=(first, second),
                wrong=(own.count(first), own.count(second)),
                queries=(size[first], size[second]),
                example=nearest if own[0] == first else nearest[::-1],
            )
        )
    return out
