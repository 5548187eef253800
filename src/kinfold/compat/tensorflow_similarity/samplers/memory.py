"""`tensorflow_similarity.samplers`: of examples in memory, with several of a class or one."""

from __future__ import annotations

import abc
import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kinfold.compat.tensorflow_similarity.samplers.selection import class_ids, selected
from kinfold.core import checks
from kinfold.core.epochs import an_epoch_was_trained
from kinfold.metrics.task import to_numpy


def as_it_is(example: Any) -> Any:
    """Return an example."""
    return example


class Sampler(keras.utils.PyDataset, abc.ABC):
    """Batches for `fit`, drawn anew in every epoch.

    Args:
        classes_per_batch: classes of a batch.
        examples_per_class_per_batch: examples of each.
        num_augmentations_per_example: what the augmenter is asked for.
        steps_per_epoch: batches of an epoch.
        augmenter: takes (x, y, num_augmentations_per_example, is_warmup) and returns two: examples
            and labels, or two views.
        warmup: epochs during which the augmenter is told that it is warming up; 0 or less for none.
    """

    def __init__(
        self,
        classes_per_batch: int,
        examples_per_class_per_batch: int = 2,
        num_augmentations_per_example: int = 1,
        steps_per_epoch: int = 1000,
        augmenter: Any = None,
        warmup: int = 0,
    ) -> None:
        super().__init__()
        self.classes_per_batch = checks.count(classes_per_batch, "classes_per_batch")
        self.examples_per_class_per_batch = checks.count(
            examples_per_class_per_batch, "examples_per_class_per_batch"
        )
        self.num_augmentations_per_example = checks.count(
            num_augmentations_per_example, "num_augmentations_per_example"
        )
        self.batch_size = self.classes_per_batch * self.examples_per_class_per_batch
        self.steps_per_epoch = checks.count(steps_per_epoch, "steps_per_epoch")
        if augmenter is not None and not callable(augmenter):
            raise TypeError(
                f"`augmenter` must be a function or an Augmenter. Received {augmenter!r}."
            )
        self.augmenter, self.warmup = augmenter, warmup
        self.epoch = 0
        self._seed = random.getrandbits(63)

    @property
    def is_warmup(self) -> bool:
        """Whether this epoch is one of the first, as `warmup` says."""
        return self.epoch < self.warmup

    def __len__(self) -> int:
        return self.steps_per_epoch

    def on_epoch_end(self) -> None:
        """Begin the next epoch, unless Keras calls this without having trained one."""
        if an_epoch_was_trained():
            self.epoch += 1

    def __getitem__(self, batch_id: int) -> Any:
        return self.generate_batch(batch_id)

    def generate_batch(self, batch_id: int) -> Any:
        """Return a batch of this epoch, (x, y); with an augmenter what that makes of it."""
        x, y = self._get_examples(
            batch_id, self.classes_per_batch, self.examples_per_class_per_batch
        )
        return (x, y) if self.augmenter is None else self._augmented(x, y)

    def _augmented(self, x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
        made = self.augmenter(x, y, self.num_augmentations_per_example, self.is_warmup)
        if not isinstance(made, tuple | list) or len(made) != 2:
            raise ValueError(
                "An augmenter of a sampler must return two: examples and labels, or two views. "
                f"Received {len(made) if isinstance(made, tuple | list) else type(made).__name__}."
            )
        return made[0], made[1]

    @abc.abstractmethod
    def _get_examples(
        self, batch_id: int, num_classes: int, examples_per_class: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the examples and labels of a batch."""

    def _drawn(self, batch_id: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, self.epoch, batch_id])


class MultiShotMemorySampler(Sampler):
    """Batches with several examples of each of several classes.

    Args:
        x: n examples, an array [n, ...] or a list of anything that `load_example_fn` takes.
        y: class ids [n].
        load_example_fn: makes an array of what `x` holds of an example.
        classes_per_batch: classes of a batch.
        examples_per_class_per_batch: examples of each, with replacement where there are fewer.
        steps_per_epoch: batches of an epoch.
        class_list: the classes to draw from; None for all.
        total_examples_per_class: how many examples of each class to keep, at most; None for all.
        augmenter, warmup: as for `Sampler`.

    Raises:
        ValueError: fewer classes than a batch holds, other numbers of examples and labels.
        TypeError: labels that are not integers.

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.samplers import MultiShotMemorySampler
    >>> x, y = np.arange(12.0).reshape(6, 2), np.array([0, 0, 1, 1, 2, 2])
    >>> batches = MultiShotMemorySampler(x, y, classes_per_batch=2, steps_per_epoch=5)
    >>> batch_x, batch_y = batches[0]
    >>> batch_x.shape, len(batches), len(set(batch_y.tolist()))
    ((4, 2), 5, 2)
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        load_example_fn: Callable[[Any], Any] = as_it_is,
        classes_per_batch: int = 2,
        examples_per_class_per_batch: int = 2,
        steps_per_epoch: int = 1000,
        class_list: Sequence[int] | None = None,
        total_examples_per_class: int | None = None,
        augmenter: Any = None,
        warmup: int = -1,
    ) -> None:
        super().__init__(
            classes_per_batch,
            examples_per_class_per_batch=examples_per_class_per_batch,
            steps_per_epoch=steps_per_epoch,
            augmenter=augmenter,
            warmup=warmup,
        )
        self.load_example_fn = load_example_fn
        rows = selected(x, y, class_list, total_examples_per_class)
        labels = class_ids(y)
        self._x, self._y, self._rows = x, labels, rows
        classes, of = np.unique(labels[rows], return_inverse=True)
        self.class_list = classes.tolist()
        if self.classes_per_batch > len(classes):
            raise ValueError(
                f"`classes_per_batch` must be at most {len(classes)}, the number of classes. "
                f"Received: classes_per_batch={classes_per_batch}."
            )
        self._of_class = [rows[of == place] for place in range(len(classes))]
        small = sum(len(one) < self.examples_per_class_per_batch for one in self._of_class)
        if small:
            warnings.warn(
                f"{small} of {len(classes)} classes have fewer than "
                f"{examples_per_class_per_batch} examples, so their examples are drawn more than "
                "once in a batch. Pass an augmenter, or leave them out by `class_list`.",
                stacklevel=2,
            )

    def _get_examples(
        self, batch_id: int, num_classes: int, examples_per_class: int
    ) -> tuple[np.ndarray, np.ndarray]:
        rng = self._drawn(batch_id)
        rows: list[int] = []
        for place in rng.permutation(len(self._of_class))[:num_classes]:
            own = self._of_class[place]
            rows += rng.choice(own, examples_per_class, len(own) < examples_per_class).tolist()
        return self._loaded(rows), self._y[rows]

    def _loaded(self, rows: Any) -> np.ndarray:
        if self.load_example_fn is as_it_is and isinstance(self._x, np.ndarray):
            return self._x[rows]
        return np.stack([to_numpy(self.load_example_fn(self._x[row])) for row in rows])

    def get_slice(self, begin: int = 0, size: int = -1) -> tuple[np.ndarray, np.ndarray]:
        """Return `size` of the examples and their labels from `begin` on, in the kept order.

        As there, a size of -1 leaves out the last.
        """
        rows = self._rows[begin : begin + size]
        return self._loaded(rows), self._y[rows]

    @property
    def num_examples(self) -> int:
        """How many examples are drawn from."""
        return len(self._rows)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of an example."""
        return self._loaded(self._rows[:1]).shape[1:]


class SingleShotMemorySampler(Sampler):
    """Batches of augmented examples, each example being a class of its own.

    Args:
        x: n examples, an array [n, ...] or a list of arrays.
        augmenter: as for `Sampler`.
        examples_per_batch: examples that the augmenter gets for a batch, drawn with replacement.
        num_augmentations_per_example: what it is asked for.
        steps_per_epoch: batches of an epoch.
        warmup: as for `Sampler`.
    """

    def __init__(
        self,
        x: Any,
        augmenter: Any,
        examples_per_batch: int,
        num_augmentations_per_example: int = 2,
        steps_per_epoch: int = 1000,
        warmup: int = -1,
    ) -> None:
        super().__init__(
            examples_per_batch,
            examples_per_class_per_batch=1,
            num_augmentations_per_example=num_augmentations_per_example,
            steps_per_epoch=steps_per_epoch,
            augmenter=augmenter,
            warmup=warmup,
        )
        if augmenter is None:
            raise ValueError("Single shots need an `augmenter`, which makes the positives.")
        self._x = x

    def _get_examples(
        self, batch_id: int, num_classes: int, examples_per_class: int
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = self._drawn(batch_id).integers(0, len(self._x), num_classes, dtype=np.int32)
        return self._loaded(rows), rows

    def _loaded(self, rows: Any) -> np.ndarray:
        if isinstance(self._x, np.ndarray):
            return self._x[rows]
        return np.stack([to_numpy(self._x[row]) for row in rows])

    def get_slice(self, begin: int = 0, size: int = -1) -> tuple[Any, Any]:
        """Return what the augmenter makes of `size` examples from `begin` on.

        As there, a size of -1 leaves out the last.
        """
        rows = np.arange(len(self._x), dtype=np.int32)[begin : begin + size]
        return self._augmented(self._loaded(rows), rows)

    @property
    def num_examples(self) -> int:
        """How many examples are drawn from."""
        return len(self._x)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of an example."""
        return self._loaded([0]).shape[1:]
