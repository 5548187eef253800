"""Pairs that are nearly the same picture in two classes, or in two splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kinfold.metrics.retrieval import neighbours

MOST = 10_000  # test examples compared
MOST_OTHERS = 50_000  # examples of each other split
_DEPTH = 16  # nearest neighbours looked at
_CLOSE, _SAME = 0.1, 0.03  # largest differences of a pair's embeddings and of its raw input
_CANDIDATES = 20_000  # pairs whose raw input is compared

Rows = Callable[[np.ndarray], np.ndarray]  # indices [m] -> raw input [m, p] of unit norm


class Other(NamedTuple):
    """Examples of another split."""

    embeddings: np.ndarray  # floating [m, d]
    raw: Rows
    classes: list[str]  # the name of each example's class


@dataclass(frozen=True)
class Duplicate:
    """Two examples that are nearly the same, the most alike ones of their two classes."""

    index: int  # of the test
    split: str  # where the other one is; "" for the test
    other: int  # its index there
    similarity: float  # cosine, of the embeddings
    difference: float  # of the raw input: 0 for copies, about 1 for two examples at random
    pairs: int  # so alike, of the same two classes and splits


@dataclass(frozen=True)
class Duplicates:
    """What was found, and among how many."""

    shown: list[Duplicate]
    groups: int  # pairs of classes with duplicates, shown or not
    pairs: int
    compared: dict[str, tuple[int, int]]  # split -> (examples compared, examples there)


def duplicates(
    embeddings: np.ndarray,
    raw: Rows,
    classes: list[str],
    others: Mapping[str, Other],
    limit: int = 12,
) -> Duplicates:
    """Find near-duplicates of two classes within the test, and between the test and other splits.

    Candidates are neighbours by embedding. A pair is listed where the squared distance of its
    embeddings and of its raw input are both a small fraction of what two examples at random have.

    Args:
        embeddings: floating [n, d], of unit norm.
        raw: gives raw input by index.
        classes: the name of each example's class.
        others: other splits by name; "" is the test itself.
        limit: how many pairs are given, one for each pair of classes.
    """
    rng = np.random.default_rng(0)
    mine = _some(rng, len(embeddings), MOST)
    scale = _spread(embeddings[mine]), _spread(raw(_some(rng, len(embeddings), 1000)))
    compared = {"": (len(mine), len(embeddings))}
    found: list[Duplicate] = []
    if len(mine) > 1:
        own = Other(embeddings, raw, classes)
        near = neighbours(embeddings[mine], min(_DEPTH, len(mine) - 1))[0]
        found += _close("", own, own, mine, mine[near], scale)
    for name, other in others.items():
        theirs = _some(rng, len(other.embeddings), MOST_OTHERS)
        compared[name] = (len(theirs), len(other.embeddings))
        if len(theirs):
            gallery = other.embeddings[theirs]
            near = neighbours(embeddings[mine], min(_DEPTH, len(theirs)), gallery)[0]
            own = Other(embeddings, raw, classes)
            found += _close(name, own, other, mine, theirs[near], scale)
    found.sort(key=lambda pair: (round(pair.difference, 4), -pair.similarity))
    return Duplicates(found[:limit], len(found), sum(pair.pairs for pair in found), compared)


def _some(rng: np.random.Generator, n: int, limit: int) -> np.ndarray:
    """Indices of all, or of a sample without replacement, in order."""
    return np.arange(n) if n <= limit else np.sort(rng.choice(n, limit, replace=False))


def _spread(rows: np.ndarray) -> float:
    """The mean squared distance of two rows drawn at random."""
    return 2.0 * float(np.var(rows.astype("float64"), axis=0).sum())


def _close(
    name: str,
    own: Other,
    other: Other,
    mine: np.ndarray,
    near: np.ndarray,
    scale: tuple[float, float],
) -> list[Duplicate]:
    """One entry for each pair of classes: its most alike pair, and how many there are."""
    i, j = np.repeat(mine, near.shape[1]), near.reshape(-1)
    if name == "":
        # Within the test each pair once, and only of two classes.
        ids = np.unique(own.classes, return_inverse=True)[1].reshape(-1)
        i, j = np.unique(np.sort(np.stack([i, j]), axis=0)[:, ids[i] != ids[j]], axis=1)
    apart = _differences(lambda k: own.embeddings[k], lambda k: other.embeddings[k], i, j, scale[0])
    chosen = np.argsort(apart, kind="stable")[:_CANDIDATES]
    chosen = chosen[apart[chosen] <= _CLOSE]
    i, j, apart = i[chosen], j[chosen], apart[chosen]
    difference = _differences(own.raw, other.raw, i, j, scale[1])
    groups: dict[tuple[str, str], list[int]] = {}
    for pair in np.lexsort((apart, difference)).tolist():
        if difference[pair] <= _SAME:
            names = own.classes[i[pair]], other.classes[j[pair]]
            key = names if name or names[0] <= names[1] else names[::-1]
            groups.setdefault(key, []).append(pair)
    return [
        Duplicate(
            index=int(i[pairs[0]]),
            split=name,
            other=int(j[pairs[0]]),
            similarity=float(own.embeddings[i[pairs[0]]] @ other.embeddings[j[pairs[0]]]),
            difference=float(difference[pairs[0]]),
            pairs=len(pairs),
        )
        for pairs in groups.values()
    ]


def _differences(
    first: Rows, second: Rows, i: np.ndarray, j: np.ndarray, scale: float, block: int = 256
) -> np.ndarray:
    """[m]: squared distances of rows i and j, in units of `scale`; 0 where rows are equal."""
    out = np.empty(len(i))
    for start in range(0, len(i), block):
        part = slice(start, start + block)
        gap = first(i[part]).astype("float64") - second(j[part])
        out[part] = (gap**2).sum(axis=1)
    out[out < 1e-9] = 0.0
    return out / scale if scale > 1e-9 else out
