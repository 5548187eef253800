"""Examples whose neighbours speak for another class than their own: likely mislabelled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kinfold.training.report.measures.queries import VOTERS, Neighbourhood, class_sizes

_FEWEST = 2  # examples of the other class: one alone proves nothing
_LEAST = 0.4  # score from which an example is listed


@dataclass(frozen=True)
class Suspect:
    """An example that looks like one of another class."""

    index: int
    label: int  # of the class that its neighbours speak for
    witness: int  # its nearest neighbour of that class
    own: float  # share of its first R neighbours with its own label, R as many as could have it
    other: float  # the same for `label`
    score: float  # (other - own) x mean share `own` of the rest of its class


def suspects(near: Neighbourhood, limit: int = 12) -> tuple[list[Suspect], int]:
    """The examples most likely mislabelled, best score first, and how many there are in all.

    The last factor of the score keeps away classes that the embedding confuses as a whole: there
    the labels may all be right.
    """
    near_y = near.y[near.indices[:, :VOTERS]]
    k = near_y.shape[1]
    if not k:
        return [], 0
    sizes = class_sizes(near.y)
    own = _share(near_y, near.y, np.minimum(sizes - 1, k))
    ids = np.unique(near.y, return_inverse=True)[1].reshape(-1)
    rest = (np.bincount(ids, own)[ids] - own) / np.maximum(sizes - 1, 1)

    other, place = np.zeros(len(near.y)), np.zeros(len(near.y), int)
    for j in range(k):
        members = sizes[near.indices[:, j]]
        share = _share(near_y, near_y[:, j], np.minimum(members, k))
        higher = (near_y[:, j] != near.y) & (members >= _FEWEST) & (share > other)
        other[higher], place[higher] = share[higher], j
    score = (other - own) * rest
    listed = np.flatnonzero(score >= _LEAST)
    rows = np.arange(len(near.y))
    likeness = near.similarities[rows, place]
    listed = listed[np.lexsort((-likeness[listed], -score[listed]))]
    return [
        Suspect(
            index=int(i),
            label=int(near_y[i, place[i]]),
            witness=int(near.indices[i, place[i]]),
            own=float(own[i]),
            other=float(other[i]),
            score=float(score[i]),
        )
        for i in listed[:limit]
    ], len(listed)


def _share(near_y: np.ndarray, label: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """[n]: the share of the first `ranks` neighbours that have the label; 0 of no ranks."""
    within = np.arange(near_y.shape[1]) < ranks[:, None]
    return ((near_y == label[:, None]) & within).sum(axis=1) / np.maximum(ranks, 1)
