"""The numbers behind the report: neighbours, the choice of queries, pair similarities, the map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kinfold.metrics import neighbours, retrieval_metrics

RECALLS = (1, 2, 4, 8, 16, 32)
SHOWN = 8  # neighbours of a query in the gallery
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


def gallery(
    vectors: np.ndarray, y: np.ndarray, sizes: tuple[int, int, int] = (12, 6, 4)
) -> list[Group]:
    """The worst, some typical and some good queries; no class and no confusion twice in a group."""
    relevant = np.minimum(class_sizes(y) - 1, DEEPEST)
    valid = np.flatnonzero(relevant > 0)
    if not len(valid):
        return []
    k = int(min(len(y) - 1, max(SHOWN, relevant.max())))
    indices, distances = neighbours(vectors, k)
    right = y[indices] == y[:, None]
    found = (right & (np.arange(k) < relevant[:, None])).sum(axis=1)
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
                    similarities=1.0 - distances[i, first],
                    right=right[i, first],
                    found=int(found[i]),
                    relevant=int(relevant[i]),
                )
            )
        return chosen

    # Fewest right first; among equals the wrong first neighbour that the model is surest of.
    worst = valid[np.lexsort((distances[valid, 0], right[valid, 0], share[valid]))]
    worst = worst[share[worst] < 1]
    typical = shuffled[np.argsort(np.abs(share[shuffled] - median), kind="stable")]
    good = shuffled[share[shuffled] == best] if best > median else shuffled[:0]
    none = int((found[valid] == 0).sum())
    groups = [
        Group(
            "Worst",
            "The queries with the smallest share of right answers, and among equal ones those with "
            "the most similar wrong first neighbour. A class, and a pair of classes confused, is "
            f"shown once. Queries without any right answer: {none:,} of {len(valid):,}.",
            take(worst, sizes[0]),
        ),
        Group(
            "Typical",
            f"Drawn at random from the queries nearest to the median share, {median:.0%}"
            + ("." if best > median else ", which is also the highest."),
            take(typical, sizes[1]),
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
class Similarities:
    """Cosine similarities of pairs of one class and of pairs of two classes."""

    positive: np.ndarray
    negative: np.ndarray
    positive_pairs: int  # in the whole set; `positive` is a sample where it is shorter
    negative_pairs: int

    def separation(self) -> float:
        """Probability that a positive pair is more similar than a negative one (ties half)."""
        negative = np.sort(self.negative)
        below = np.searchsorted(negative, self.positive, side="left")
        upto = np.searchsorted(negative, self.positive, side="right")
        return float((below + upto).mean() / (2 * len(negative)))


def similarities(vectors: np.ndarray, y: np.ndarray, limit: int = 200_000) -> Similarities:
    """All positive pairs up to a limit, beyond it a seeded sample; the same for negatives."""
    vectors = np.asarray(vectors, dtype="float32")
    n, width = vectors.shape
    limit = min(limit, max(2_000, 2**28 // width))  # raw photos are wide: bound the work
    rng = np.random.default_rng(0)

    order = np.argsort(y, kind="stable")
    counts = np.unique(y, return_counts=True)[1].astype(np.int64)
    ends = np.cumsum(counts * (counts - 1) // 2)
    positive_pairs = int(ends[-1])
    negative_pairs = n * (n - 1) // 2 - positive_pairs

    # Positive pairs are numbered class by class; within a class pair r is row j, column i < j.
    number = (
        np.arange(positive_pairs)
        if positive_pairs <= limit
        else rng.integers(positive_pairs, size=limit)
    )
    group = np.searchsorted(ends, number, side="right")
    within = number - (ends - counts * (counts - 1) // 2)[group]
    j = ((1 + np.sqrt(1 + 8 * within.astype("float64"))) / 2).astype(np.int64)
    i = within - j * (j - 1) // 2
    start = (np.cumsum(counts) - counts)[group]
    positive = _paired(vectors, order[start + i], order[start + j])

    if n * (n - 1) // 2 <= limit:
        a, b = np.triu_indices(n, 1)
    else:
        a, b = rng.integers(n, size=(2, limit))
    different = y[a] != y[b]
    negative = _paired(vectors, a[different], b[different])
    return Similarities(positive, negative, positive_pairs, negative_pairs)


def _paired(vectors: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """[m]: the inner products of rows i and j, in blocks of about 32 MB."""
    block = max(1, 2**22 // vectors.shape[1])
    out = np.empty(len(i), dtype="float32")
    for start in range(0, len(i), block):
        part = slice(start, start + block)
        out[part] = np.einsum("nd,nd->n", vectors[i[part]], vectors[j[part]])
    return np.clip(out, -1.0, 1.0)


def some_examples(y: np.ndarray, limit: int, classes: int | None = None) -> np.ndarray:
    """Indices of at most `limit` examples of classes drawn at random, whole classes if they fit."""
    rng = np.random.default_rng(0)
    drawn = rng.permutation(np.unique(y))[:classes]
    share = max(30, limit // len(drawn))
    taken: list[np.ndarray] = []
    room = limit
    for label in drawn:
        if room <= 0:
            break
        members = rng.permutation(np.flatnonzero(y == label))[: min(share, room)]
        taken.append(members)
        room -= len(members)
    return np.concatenate(taken)


def plane(vectors: np.ndarray) -> np.ndarray:
    """[n, 2]: t-SNE of the cosine distances, deterministic; each axis scaled to 0..1."""
    vectors = np.asarray(vectors, dtype="float32")
    n, width = vectors.shape
    spread = float(vectors.std(axis=0).max())
    if n < 6:  # too few for neighbourhoods: the first two principal axes
        centred = vectors - vectors.mean(axis=0)
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        points = np.zeros((n, 2))
        points[:, : min(2, len(s))] = (u * s)[:, :2]
    else:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        # A collapsed embedding has no principal axes to start from.
        init = "pca" if width > 1 and spread > 1e-6 else "random"
        model = TSNE(
            perplexity=min(30.0, (n - 1) / 3),
            init=init,
            metric="cosine",
            max_iter=750,
            random_state=0,
        )
        # One thread: the same map on any number of cores, and no spinning on a busy machine.
        with threadpool_limits(1):
            points = model.fit_transform(vectors)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.where(high > low, (points - low) / np.where(high > low, high - low, 1.0), 0.5)


def on_grid(points: np.ndarray, columns: int, rows: int, reach: int = 2) -> np.ndarray:
    """[n, 2]: a cell of its own for each point, the nearest free one; -1 where none is in reach."""
    size = np.array([columns, rows])
    wanted = points * (size - 1)
    free = np.ones((columns, rows), dtype=bool)
    cells = np.full((len(points), 2), -1)
    steps = np.array([(i, j) for i in range(-reach, reach + 1) for j in range(-reach, reach + 1)])
    for n in np.random.default_rng(0).permutation(len(points)):
        near = np.rint(wanted[n]).astype(int) + steps
        near = near[((near >= 0) & (near < size)).all(axis=1)]
        near = near[free[near[:, 0], near[:, 1]]]
        if len(near):
            cell = near[((near - wanted[n]) ** 2).sum(axis=1).argmin()]
            cells[n] = cell
            free[cell[0], cell[1]] = False
    return cells
