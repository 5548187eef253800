"""`tensorflow_similarity.samplers.select_examples`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.labels import integer_labels
from kinfold.metrics.task import to_numpy


def select_examples(
    x: Any,
    y: Tensor,
    class_list: Sequence[int] | None = None,
    num_examples_per_class: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Select examples of some classes, at most so many of each, in random order.

    Each example is taken once; the peer draws with replacement.

    Args:
        x: n examples, an array [n, ...] or a list.
        y: class ids [n] or [n, 1].
        class_list: the classes to keep; None for all.
        num_examples_per_class: how many examples of each class, at most; None for all.

    Returns:
        The examples and their class ids, arrays.

    Raises:
        ValueError: other numbers of examples and labels, or a class that has no example.
        TypeError: labels that are not integers.

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.samplers import select_examples
    >>> x, y = select_examples(np.arange(6), np.array([0, 0, 0, 1, 1, 2]), [0, 1], 2)
    >>> sorted(y.tolist())
    [0, 0, 1, 1]
    """
    rows = selected(x, y, class_list, num_examples_per_class)
    labels = class_ids(y)
    taken = x[rows] if isinstance(x, np.ndarray) else [to_numpy(x[row]) for row in rows]
    return np.asarray(taken), labels[rows]


def class_ids(y: Any) -> np.ndarray:
    """Return class ids as integers [n]."""
    given = to_numpy(y) if hasattr(y, "shape") else np.array([to_numpy(one) for one in y])
    return integer_labels(given.reshape(-1) if given.ndim == 2 else given, "y")


def selected(
    x: Any, y: Any, class_list: Sequence[int] | None, num_examples_per_class: int | None
) -> np.ndarray:
    """The rows that `select_examples` takes, in its order."""
    labels = class_ids(y)
    if len(x) != len(labels):
        raise ValueError(
            "`x` and `y` must hold as many examples. Received "
            f"{len(x)} examples and {len(labels)} labels."
        )
    known, of = np.unique(labels, return_inverse=True)
    classes = known if class_list is None else np.unique([int(one) for one in class_list])
    unknown = np.setdiff1d(classes, known)
    if len(unknown):
        raise ValueError(
            "`class_list` must name classes that have examples. Received, without any: "
            f"{unknown[:5].tolist()}."
        )
    rng = np.random.default_rng(random.getrandbits(63))
    rows = [np.flatnonzero(of == place) for place in np.searchsorted(known, classes)]
    if num_examples_per_class is not None:
        most = checks.count(num_examples_per_class, "num_examples_per_class")
        rows = [rng.permutation(one)[:most] for one in rows]
    return rng.permutation(np.concatenate(rows))
