"""The map of an embedding: some of its items in the plane."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np

from kinfold_serving.snapshot import Snapshot

MOST = 5000  # items on a map
_FEW = 5  # items that t-SNE needs
METHODS = ("pca", "tsne")


@dataclass(frozen=True)
class Places:
    """Where items lie.

    Attributes:
        number: of the snapshot that they are of.
        method: how they were placed.
        rows: of the items, [n].
        at: float32 [n, 2], from -1 to 1.
    """

    number: int
    method: str
    rows: np.ndarray
    at: np.ndarray


class Maps:
    """The maps of the snapshot that is served; each is computed once, in a thread of its own."""

    def __init__(self) -> None:
        self._running: dict[tuple[int, str], asyncio.Task[Places]] = {}

    def begun(self, snapshot: Snapshot, method: str) -> asyncio.Task[Places]:
        """The computation of a map, begun if it was not."""
        key = snapshot.number, method
        failed = key in self._running and _has_failed(self._running[key])
        if key not in self._running or failed:
            for number, other in tuple(self._running):
                if number != snapshot.number and self._running[number, other].done():
                    del self._running[number, other]
            self._running[key] = asyncio.create_task(asyncio.to_thread(place, snapshot, method))
        return self._running[key]


def place(snapshot: Snapshot, method: str) -> Places:
    """Place items of an index in the plane.

    Args:
        snapshot: of the index; of more than 5,000 items as many are drawn, always the same.
        method: "pca" for the two directions in which they differ most; "tsne" keeps neighbours
            together, and takes longer.
    """
    count = len(snapshot.index)
    rows = np.arange(count)
    if count > MOST:
        rows = np.sort(np.random.default_rng(0).permutation(count)[:MOST])
    x = snapshot.index.vectors(rows).astype(np.float64)
    if snapshot.distance == "cosine":
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    if method == "tsne" and count >= _FEW:
        at = _tsne(x)
    else:
        method, at = "pca", _pca(x, 2)
    at = at - at.mean(axis=0)
    at /= max(float(np.abs(at).max()), 1e-12)
    return Places(snapshot.number, method, rows, at.astype(np.float32))


def _pca(x: np.ndarray, dimensions: int) -> np.ndarray:
    """float64 [n, dimensions], with a sign that does not change from one time to the next."""
    x = x - x.mean(axis=0)
    _, vectors = np.linalg.eigh(x.T @ x)
    axes = vectors[:, ::-1][:, :dimensions]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    out = np.zeros((len(x), dimensions))
    out[:, : axes.shape[1]] = x @ axes
    return out


def _tsne(x: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE

    if x.shape[1] > 50:
        x = _pca(x, 50)
    perplexity = min(30.0, (len(x) - 1) / 3)
    made = TSNE(perplexity=perplexity, init="pca", random_state=0, learning_rate="auto")
    return np.asarray(made.fit_transform(x.astype(np.float32)))


def _has_failed(task: asyncio.Task[Places]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
