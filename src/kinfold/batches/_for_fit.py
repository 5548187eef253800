"""Class-balanced batches for `fit`."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from kinfold.batches._checks import check_count
from kinfold.batches._gathering import SHARE
from kinfold.batches._indices import ClassBalancedIndices
from kinfold.core import batch_labels
from kinfold.core.epochs import an_epoch_was_trained
from kinfold.core.labels import integer_labels


class ClassBalancedBatches(keras.utils.PyDataset):
    """Class-balanced batches of arrays for `fit`, as `ClassBalancedIndices` deals them.

    `fit` sees the batches of epoch `current_epoch` in order, then those of the next, on every
    backend, with any number of workers and whatever its `shuffle`. Set the length of an epoch with
    `batches_per_epoch`, not with the `steps_per_epoch` of `fit`, which would cut epochs short.

    Where several processes train together, each deals the same batches and reads only its own share
    of every batch, see `ClassBalancedIndices`. With one process for several devices, as under
    MirroredStrategy of TensorFlow and DataParallel on JAX, `fit` gives each device its share.

    Args:
        x: the examples: an array `[n, ...]`, or a dict, list or tuple of such arrays. A memory
            map will do.
        y: `[n]` or `[n, 1]` integers, the class of each example. They reach the loss in the type
            that they have, but JAX without x64 makes 32 bits of them.
        classes_per_batch: classes in a batch, over all ranks.
        examples_per_class: examples of each class in a batch, over all ranks.
        batches_per_epoch: batches in an epoch; by default about one pass over the examples.
        seed: an integer for repeatable epochs; None draws one at random, the same on all ranks.
        workers: threads that gather batches ahead; 1 gathers each batch when it is asked for.
        use_multiprocessing: False; batches of arrays in memory are gathered by threads.
        max_queue_size: batches gathered ahead where `workers` is more than 1.
        share: as `ClassBalancedIndices` takes it.

    Attributes:
        indices: the `ClassBalancedIndices`, with `seed`, `left_out` and `share`.
        current_epoch: the epoch of the batches that are read now, which is the number of epochs
            that `fit` has trained with them; `evaluate` and `predict` do not count. Set it to
            resume. An epoch that was broken off begins again.
        first_batch: how many batches of the current epoch are left out at its beginning; 0 from the
            next epoch on. Set it to resume in the middle of an epoch, in a `fit` of this one alone:
            Keras takes the length of the first epoch for all.

    It pickles: a copy begins the current epoch and gives the same batches, of which each rank that
    loads it reads its share.

    Raises:
        TypeError: labels are not integers.
        ValueError: the counts of `x` and `y` differ, `use_multiprocessing` is True, `y` needs more
            than the 32 bits that JAX keeps without x64, or as `ClassBalancedIndices`.

    Example:

    >>> import numpy as np
    >>> from kinfold.batches import ClassBalancedBatches
    >>> x, y = np.arange(12.0).reshape(6, 2), np.array([0, 0, 1, 1, 2, 2])
    >>> batches = ClassBalancedBatches(x, y, classes_per_batch=2, examples_per_class=2, seed=0)
    >>> len(batches)
    2
    >>> x_batch, y_batch = batches[0]
    >>> x_batch.shape, y_batch.tolist()
    ((4, 2), [0, 0, 2, 2])
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        classes_per_batch: int,
        examples_per_class: int,
        batches_per_epoch: int | None = None,
        seed: int | None = None,
        workers: int = 1,
        use_multiprocessing: bool = False,
        max_queue_size: int = 10,
        share: tuple[int, int] | None = None,
    ) -> None:
        if use_multiprocessing:
            raise ValueError(
                "use_multiprocessing must be False: batches are gathered by threads from arrays "
                "in memory. Pass workers=2 or more to gather them ahead."
            )
        super().__init__(workers=1, max_queue_size=check_count("max_queue_size", max_queue_size))
        self._y = np.asarray(y)
        integer_labels(self._y, "y")  # here too, to name what was passed in an error
        batch_labels.check(self._y)
        self.indices = ClassBalancedIndices(
            y, classes_per_batch, examples_per_class, batches_per_epoch, seed, share
        )
        self._x = keras.tree.map_structure(
            lambda part: part if hasattr(part, "shape") else np.asarray(part), x
        )
        for part in keras.tree.flatten(self._x):
            if not part.shape or part.shape[0] != len(self._y):
                raise ValueError(
                    "x and y must hold as many examples, along the first axis. Received an array "
                    f"of shape {tuple(part.shape)} in x, and {len(self._y)} labels."
                )
        self._threads = check_count("workers", workers, lowest=0)
        self.current_epoch = self.first_batch = 0
        self._begin()

    def _begin(self) -> None:
        """Make what serves one process alone, and read nothing yet."""
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None
        self._lock = threading.Lock()
        self._turns: dict[int, int] | None = None
        self._rows: tuple[int, np.ndarray] | None = None
        self._ahead: dict[tuple[int, int], Future] = {}

    def __getstate__(self) -> dict[str, Any]:
        own = ("_pool", "_lock", "_turns", "_rows", "_ahead")
        return {name: value for name, value in vars(self).items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def set_confused(self, confused: Any, share: float = SHARE) -> None:
        """Bring confused classes together, as `ClassBalancedIndices.set_confused` does.

        It holds from the next batch on that is read, so call it between epochs, such as in
        `on_epoch_begin` of a callback.
        """
        with self._lock:
            self.indices.set_confused(confused, share)
            self._rows, self._ahead = None, {}

    @property
    def workers(self) -> int:
        """1, whatever the number of threads here: Keras is to read the batches in turn.

        Keras's own threads keep batches that they have read ahead for the epoch after.
        """
        return 1

    def on_epoch_begin(self) -> None:
        """Start handing out the epoch to `fit`, in order."""
        self._turns = {}

    def on_epoch_end(self) -> None:
        """Move on to the next epoch, unless Keras calls this without having trained one."""
        self._turns = None
        if an_epoch_was_trained():
            self.current_epoch += 1
            self.first_batch = 0

    def __len__(self) -> int:
        return len(self.indices) - self.first_batch

    def __getitem__(self, index: int) -> tuple[Any, np.ndarray]:
        """Batch `index` of the current epoch, counted from `first_batch` on: `(x, y)`."""
        index, epoch = range(len(self))[index], self.current_epoch
        with self._lock:
            # fit asks for the batches in an order shuffled by a generator of its own (its
            # shuffle=True): the first asked for is to be batch 0 all the same, and so on.
            if self._turns is not None:
                index = self._turns.setdefault(index, len(self._turns))
            index += self.first_batch
            if self._rows is None or self._rows[0] != epoch:
                self._rows = epoch, self.indices.epoch(epoch)
            rows = self._rows[1]
            if self._pool is None:
                ready = None
            else:
                # Known by epoch and place, a batch read ahead cannot come up in another place.
                window = range(index, min(index + self.max_queue_size, len(self.indices)))
                self._ahead = {
                    (epoch, i): self._ahead.get((epoch, i))
                    or self._pool.submit(self._gather, rows[i])
                    for i in window
                }
                ready = self._ahead.pop((epoch, index))
        return self._gather(rows[index]) if ready is None else ready.result()

    def _gather(self, rows: np.ndarray) -> tuple[Any, np.ndarray]:
        return keras.tree.map_structure(lambda part: part[rows], self._x), self._y[rows]
