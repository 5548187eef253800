"""Where examples go on the map: t-SNE, then a place of its own for each on a grid."""

from __future__ import annotations

import numpy as np


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
