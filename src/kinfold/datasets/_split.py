"""`Split`, and the division of its classes and rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kinfold.core.stored import Stored, take
from kinfold.datasets._names import brief, shown


@dataclass(frozen=True, eq=False)
class Split:
    """Examples with their labels; unpacks into `x, y` as in `keras.datasets`.

    Attributes:
        x: the examples: uint8 `[n, height, width, channels]` for images, float32 `[n, d]` for
            vectors. An array, or a `Stored`, which reads examples as they are asked for.
        y: int32 `[n]`, the class of each example, 0 to classes - 1.
        names: `names[k]` is the name of class k.
        files: the name of each example, the path of its image relative to the data; None where
            examples have no names.

    Example:

    >>> import numpy as np
    >>> from kinfold.datasets import Split
    >>> split = Split(np.zeros((3, 2), "float32"), np.array([0, 1, 1], "int32"), ("a", "b"))
    >>> x, y = split
    >>> len(split), x.shape, y.tolist()
    (3, (3, 2), [0, 1, 1])
    """

    x: np.ndarray | Stored
    y: np.ndarray
    names: tuple[str, ...]
    files: tuple[str, ...] | None = None

    def __iter__(self) -> Iterator[np.ndarray | Stored]:
        yield self.x
        yield self.y

    def __len__(self) -> int:
        return len(self.y)


class Splits(NamedTuple):
    """What a run trains on, chooses its best epoch by, and is tested on.

    Example:

    >>> import numpy as np
    >>> from kinfold.datasets import Split, Splits
    >>> one, two = (Split(np.eye(2), np.array([0, 1]), names) for names in ("ab", "bc"))
    >>> Splits(one, one, two).classes_are_unseen
    False
    """

    train: Split
    validation: Split
    test: Split

    @property
    def classes_are_unseen(self) -> bool:
        """Whether no test class is a training class, by name."""
        return not set(self.train.names) & set(self.test.names)


def split_classes(split: Split, fraction: float, seed: int = 0) -> tuple[Split, Split]:
    """Divide the classes of a split in two, so that the second holds classes unseen in the first.

    Args:
        split: the examples to divide.
        fraction: the share of classes held out, between 0 and 1, rounded to a whole number of
            classes.
        seed: decides which classes are held out.

    Returns:
        `(rest, held_out)`. Labels are numbered anew from 0 in each; the order of examples stays.

    Raises:
        ValueError: `fraction` is not between 0 and 1, or either part would have no class.

    Example:

    >>> import numpy as np
    >>> from kinfold.datasets import Split, split_classes
    >>> split = Split(np.eye(4, dtype="float32"), np.array([0, 1, 2, 3]), ("a", "b", "c", "d"))
    >>> rest, held_out = split_classes(split, 0.25)
    >>> len(rest.names), len(held_out.names), set(rest.names) & set(held_out.names)
    (3, 1, set())
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be between 0 and 1, both excluded. Received {fraction!r}.")
    classes = len(split.names)
    held = round(fraction * classes)
    if not 0 < held < classes:
        raise ValueError(
            f"A fraction of {fraction} of {classes} classes is {held}; each part needs at least "
            "one class. Pass another fraction or more classes."
        )
    held_out = np.zeros(classes, bool)
    held_out[np.random.default_rng(seed).permutation(classes)[:held]] = True
    return select_classes(split, ~held_out), select_classes(split, held_out)


def select_classes(split: Split, wanted: np.ndarray) -> Split:
    """The examples of the classes where `wanted` is True, labels numbered anew."""
    return _select(split, wanted[split.y].nonzero()[0], wanted)


def select_rows(split: Split, rows: np.ndarray) -> Split:
    """The examples of these rows (increasing numbers), with the classes that they have."""
    wanted = np.zeros(len(split.names), bool)
    wanted[split.y[rows]] = True
    return _select(split, rows, wanted)


def _select(split: Split, rows: np.ndarray, wanted: np.ndarray) -> Split:
    new_ids = np.cumsum(wanted) - 1
    names = tuple(name for name, keep in zip(split.names, wanted, strict=True) if keep)
    files = None if split.files is None else tuple(split.files[row] for row in rows)
    return Split(take(split.x, rows), new_ids[split.y[rows]].astype(np.int32), names, files)


def check_classes(names: tuple[str, ...], source: object) -> None:
    """Refuse data of fewer than two classes: nothing in them is to be told apart."""
    if len(names) < 2:
        found = f"one class only, '{brief(names[0])}'" if names else "no class"
        raise ValueError(f"{shown(source)} holds {found}. Metric learning needs at least two.")
