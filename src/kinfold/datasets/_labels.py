"""Labels as users write them, numbered from 0, and the names of their classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kinfold.core.labels import INTEGERS, as_vector
from kinfold.datasets._names import as_class_names, shown


def number_arrays(
    parts: Sequence[np.ndarray], names: np.ndarray | None, path: object
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Number the labels of one or more arrays together.

    Returns:
        int32 `[n]` for each array, classes from 0 on, and the names of the classes.
    """
    values, inverses = [], []
    for y in parts:
        unique, inverse = np.unique(y, return_inverse=True)
        values.append(_python(unique, "y", path))
        inverses.append(inverse)
    numbers, class_names = number(
        sorted(set().union(*values), key=lambda value: (isinstance(value, str), value)),
        None if names is None else _names(names, path),
        path,
    )
    return [
        np.array([numbers[value] for value in found], np.int32)[inverse]
        for found, inverse in zip(values, inverses, strict=True)
    ], class_names


def number(
    values: Sequence[int | str], names: Sequence[str] | None, path: object
) -> tuple[dict[int | str, int], tuple[str, ...]]:
    """The number of each of these different labels, as they are ordered, and the class names.

    Python's own strings are compared: NumPy's lose NULs at their end.
    """
    numbers = {value: k for k, value in enumerate(values)}
    kinds = {type(value) for value in values}
    if len(kinds) > 1:
        raise ValueError(
            f"{shown(path)}: the labels of one part are integers and those of another strings. "
            "Write all in one way."
        )
    if names is None:
        return numbers, as_class_names([str(value) for value in values], path)
    if str in kinds:
        raise ValueError(
            f"{shown(path)}: names must be a list of strings, to name integer labels. Received "
            "labels that are strings."
        )
    if not all(0 <= int(value) < len(names) for value in values):
        raise ValueError(
            f"{shown(path)}: {len(names)} names serve labels 0 to {len(names) - 1}, but y holds "
            f"labels from {min(values)} to {max(values)}."
        )
    return numbers, tuple(names[int(value)] for value in values)


def check_labels(y: np.ndarray, count: int, path: object) -> np.ndarray:
    """Labels as `[n]`, refused where they are no integers or strings or not of `count` examples."""
    y = as_vector(y)
    if y.ndim != 1:
        raise ValueError(f"{shown(path)}: y must be [n] or [n, 1]. Received the shape {y.shape}.")
    if len(y) != count:
        raise ValueError(f"{shown(path)}: x holds {count} examples but y holds {len(y)} labels.")
    if y.dtype.kind not in INTEGERS + "US":
        raise ValueError(
            f"{shown(path)}: y must hold integers or strings. Received the type {y.dtype}; convert "
            "labels with y.astype(int) if they are whole numbers."
        )
    return y


def from_bytes(values: Sequence[bytes]) -> list[str]:
    """Strings of UTF-8, with bytes that are not UTF-8 as Python holds those of file names."""
    return [value.decode("utf-8", "surrogateescape") for value in values]


def _names(names: np.ndarray, path: object) -> list[str]:
    if names.ndim != 1 or names.dtype.kind != "U":
        raise ValueError(
            f"{shown(path)}: names must be a list of strings, to name integer labels. Received "
            f"names of type {names.dtype} and shape {names.shape}."
        )
    return list(map(str, _python(names, "names", path)))


def _python(array: np.ndarray, what: str, path: object) -> list:
    try:
        values = array.tolist()
    except (ValueError, SystemError):  # NumPy holds any 32 bits as a letter
        raise ValueError(f"{shown(path)}: {what} holds strings that are not Unicode.") from None
    return from_bytes(values) if array.dtype.kind == "S" else values
