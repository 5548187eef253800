"""Hard negatives of the whole training set: which classes share the batches of the next epoch."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kinfold.batches import ClassBalancedBatches, confused_classes
from kinfold.core.stored import take
from kinfold.datasets import Split
from kinfold.distributed import processes
from kinfold.training import evaluation
from kinfold.training.devices import Devices
from kinfold.training.progress import Progress

MOST_ROWS = 20_000
PER_CLASS = 4
_BATCH = 256
_STREAM = 1  # tells these random numbers from those of the batches, which have the same seed


class HardNegatives(keras.callbacks.Callback):
    """Before each epoch but the first, find the classes that the model confuses and batch them.

    The confused classes follow from the weights at the start of the epoch, so that a resumed run,
    which begins with the same weights, finds the same. Of several processes each embeds a share,
    and rank 0 searches for all.

    Args:
        encoder: the model that is trained, or the part of it that embeds.
        train: the examples that the batches are of.
        batches: their batches.
        devices: of the run.
        progress: hears how far the embedding is.
        begun: the table of an epoch that was begun before, and goes on; empty where none was.
    """

    def __init__(
        self,
        encoder: keras.Model,
        train: Split,
        batches: ClassBalancedBatches,
        devices: Devices,
        progress: Progress,
        begun: Sequence[np.ndarray] = (),
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.train = train
        self.batches = batches
        self.devices = devices
        self.told = progress.embedding("the training examples")
        self.table = list(begun)  # of this epoch
        self.begun = bool(begun)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not epoch:  # weights that are not trained confuse everything
            return
        if not self.begun:
            self.table = [self._mined(epoch)]
        self.begun = False
        self.batches.set_confused(self.table[0])

    def _mined(self, epoch: int) -> np.ndarray:
        rows = sampled(self.train.y, self.batches.indices.seed, epoch)
        labels = self.train.y[rows]
        with self.devices.measuring():
            embeddings = processes.embed(self.encoder, rows, labels, _BATCH, self._embed)
        return processes.once(lambda: self._table(embeddings, labels))

    def _embed(self, rows: np.ndarray) -> np.ndarray:
        return evaluation.embed(self.encoder, take(self.train.x, rows), self.told)

    def _table(self, embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """A row for each training class; of those without a sampled example a row of -1."""
        found = confused_classes(embeddings, labels)
        there, everyone = np.unique(labels), np.unique(self.train.y)
        ids = np.append(np.searchsorted(everyone, there), -1)  # of -1, -1
        table = np.full((len(everyone), found.shape[1]), -1, np.int64)
        table[ids[:-1]] = ids[found]
        return table


def sampled(y: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Choose rows to embed: equally many of each class, and at most MOST_ROWS in all.

    They are at most PER_CLASS random examples of each class with two examples or more. With many
    classes it is fewer per class, but at least two; if these are too many, of random classes only.

    Returns:
        int64, increasing.

    Example:

    >>> import numpy as np
    >>> from kinfold.training.hard_negatives import sampled
    >>> y = np.repeat([0, 1, 2], [20, 1, 3])
    >>> np.bincount(y[sampled(y, seed=0, epoch=1)]).tolist()
    [4, 0, 3]
    """
    rng = np.random.default_rng([seed, epoch, _STREAM])
    counts = np.unique(y, return_inverse=True, return_counts=True)
    class_of, sizes = counts[1], counts[2]
    usable = np.flatnonzero(sizes > 1)
    chosen = rng.permutation(usable)[: MOST_ROWS // 2]
    each = min(PER_CLASS, max(2, MOST_ROWS // max(1, len(chosen))))
    # Rows in random order, class by class: the first of each class are taken.
    order = np.lexsort((rng.random(len(y)), class_of))
    place = np.arange(len(y)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    taken = (place < each) & np.isin(class_of[order], chosen)
    return np.sort(order[taken])
