"""Examples saved with `numpy.savez`."""

from __future__ import annotations

import contextlib
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kinfold.datasets._labels import check_labels, number_arrays
from kinfold.datasets._names import brief, listed, part_named, shown
from kinfold.datasets._npy import damage, read_array
from kinfold.datasets._split import Split, check_classes, select_rows
from kinfold.datasets._words import EXAMPLES, LABELS, WHOLE

_BLOCK = 1 << 22  # elements checked at once
_IN_PARTS = {"x": (*EXAMPLES, "images", "image"), "y": (*LABELS, "targets")}

Keys = dict[str, dict[str, str]]  # of each part the keys of its "x" and "y"


def arrays(path: str | os.PathLike[str]) -> Split:
    """Read examples and labels from an `.npz` file with the arrays `x`, `y` and, if any, `names`.

    Where there is no `x`, one array named `embedding`, `embeddings`, `emb`, `vector`, `vectors` or
    `features` takes its place; where there is no `y`, one named `label`, `labels`, `class` or
    `target`. A file with `x_train`, `y_train` and so on is read by `parts`.

    Args:
        path: a file written by `numpy.savez(path, x=x, y=y)`:

            - `x`: `[n, d]` vectors, or `[n, height, width]` or `[n, height, width, channels]`
              images. uint8 images stay uint8; anything else becomes float32.
            - `y`: `[n]` or `[n, 1]`, labels of any integer type, or strings. They are numbered
              anew, 0 to classes - 1, in sorted order.
            - `names`: strings; `names[k]` is the name of the integer label k. Without it a class
              is named after its label.

    Returns:
        A `Split`.

    Raises:
        ValueError: the file is missing, is not a whole `.npz`, holds pickled objects, lacks `x`
            or `y` or has several in their place; shapes, counts, types or values do not fit;
            there is one class only; or an array does not fit in memory.

    Example:

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from kinfold.datasets import arrays
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "vectors.npz")
    ...     np.savez(path, x=np.eye(3), y=[20, 10, 20])
    ...     split = arrays(path)
    >>> split.x.dtype, split.y.tolist(), split.names
    (dtype('float32'), [1, 0, 1], ('10', '20'))
    """
    with opened(path) as file:
        keys = find_keys(file.files, path)
        if WHOLE not in keys:
            raise ValueError(
                f"{shown(path)} holds a split of its own ({', '.join(keys)}). Read it with "
                "kinfold.datasets.parts."
            )
        return _read(file, keys, path)[WHOLE]


def array_parts(path: str | os.PathLike[str], only: str | None = None) -> dict[str, Split]:
    """Read an `.npz` in the parts that it has, as `parts` does."""
    with opened(path) as file:
        keys = find_keys(file.files, path)
        if only in keys:
            return _read(file, {only: keys[only]}, path)
        found = _read(file, keys, path)
    if only is None or WHOLE in found:
        return found
    return {WHOLE: _joined(list(found.values()))}


def _joined(parts: Sequence[Split]) -> Split:
    names = sorted({name for part in parts for name in part.names})
    number = {name: k for k, name in enumerate(names)}
    y = [np.array([number[name] for name in part.names], np.int32)[part.y] for part in parts]
    return Split(np.concatenate([part.x for part in parts]), np.concatenate(y), tuple(names))


def find_keys(files: Sequence[str], path: object) -> Keys:
    """The keys of the examples and the labels, by part."""
    whole = {}
    for role, words in (("x", EXAMPLES), ("y", LABELS)):
        same = [role] if role in files else [key for key in files if key in words]
        if len(same) == 1:
            whole[role] = same[0]
    if len(whole) == 2:
        return {WHOLE: whole}
    parts: Keys = {}
    for key in files:
        for part, role in part_and_role(key):
            if role in parts.setdefault(part, {}):
                raise ValueError(
                    f"{shown(path)} holds two arrays for one part, {brief(parts[part][role])} and "
                    f"{brief(key)}. Leave one of them there."
                )
            parts[part][role] = key
    alone = [brief(*part.values()) for part in parts.values() if len(part) == 1]
    parts = {part: keys for part, keys in parts.items() if len(keys) == 2}
    if not parts:
        raise ValueError(
            f"{shown(path)} must hold the arrays 'x' and 'y', or 'embeddings' and 'labels'. Found: "
            f"{listed([brief(key) for key in files])}. With a split of its own: 'x_train', "
            "'y_train', 'x_test' and 'y_test', and 'x_val' and 'y_val'."
        )
    if alone:
        warnings.warn(
            f"{shown(path)}: left out: arrays without their labels or examples ({len(alone)}): "
            f"{', '.join(alone)}.",
            stacklevel=4,
        )
    return parts


def part_and_role(key: str) -> list[tuple[str, str]]:
    """`x_train` and `train_images` as [("train", "x")]; [] where a key names no part."""
    first, _, second = key.lower().partition("_")
    found = []
    for one, other in ((first, second), (second, first)):
        part = part_named(one)
        found += [(part, role) for role, words in _IN_PARTS.items() if part and other in words]
    return found


def _read(file: Any, keys: Keys, path: object) -> dict[str, Split]:
    def array(key: str) -> np.ndarray:
        return read_array(file, key, path)

    x, y, names = labelled(keys, lambda key: as_examples(array(key), path), array, file.files, path)
    wholes = {part: Split(x[part], of_part, names) for part, of_part in y.items()}
    if WHOLE in wholes:
        return wholes
    return {part: select_rows(whole, np.arange(len(whole))) for part, whole in wholes.items()}


def labelled(
    keys: Keys,
    examples: Callable[[str], Any],
    array: Callable[[str], np.ndarray],
    files: Sequence[str],
    path: object,
) -> tuple[dict[str, Any], dict[str, np.ndarray], tuple[str, ...]]:
    """The examples of each part, their labels, numbered together, and the names of the classes."""
    names = array("names") if "names" in files else None
    x, y = {}, {}
    for part, of in keys.items():
        x[part] = examples(of["x"])
        y[part] = check_labels(array(of["y"]), len(x[part]), path)
    if len({found.shape[1:] for found in x.values()}) > 1:
        raise ValueError(
            f"{shown(path)}: the examples of all parts must have one shape. Received "
            f"{', '.join(f'{found.shape[1:]} ({part})' for part, found in x.items())}."
        )
    numbers, class_names = number_arrays(list(y.values()), names, path)
    check_classes(class_names, path)
    return x, dict(zip(keys, numbers, strict=True)), class_names


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    if not os.path.isfile(path):
        raise ValueError(f"{shown(path)} is not a file.")
    with open(path, "rb") as start:  # NumPy takes what starts otherwise for pickled objects
        is_zip = start.read(4) in (b"PK\x03\x04", b"PK\x05\x06") and zipfile.is_zipfile(start)
    if not is_zip:
        raise ValueError(
            f"{shown(path)} is not an .npz file, or is cut short. Write it with numpy.savez(path, "
            "x=x, y=y)."
        )
    with damage(path, ""):
        file = np.load(path, allow_pickle=False)
    with file:
        yield file


def as_examples(x: np.ndarray, path: object) -> np.ndarray:
    """An array of examples as they are read: float32, or uint8 images; refuse any other."""
    shape, dtype = example_form(x.shape, x.dtype, path)
    if dtype == np.float32:
        with np.errstate(over="ignore"):  # found below, as infinite
            x = x.astype(np.float32, copy=False)
        check_finite(x, path)
    return x.reshape(len(x), *shape)


def example_form(
    shape: tuple[int, ...], dtype: np.dtype, path: object
) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and type of an example as it is read, where an array of examples is stored so."""
    if dtype.kind not in "fiub":
        raise ValueError(f"{shown(path)}: x must hold numbers. Received the type {dtype}.")
    if len(shape) not in (2, 3, 4) or 0 in shape:
        raise ValueError(
            f"{shown(path)}: x must be [n, d], [n, height, width] or [n, height, width, "
            f"channels], with no size of 0. Received the shape {shape}."
        )
    images = len(shape) > 2 and dtype == np.uint8
    form = (*shape[1:], 1) if len(shape) == 3 else shape[1:]
    return form, np.dtype(np.uint8 if images else np.float32)


def check_finite(x: np.ndarray, path: object, rows: np.ndarray | None = None) -> None:
    """Refuse examples with values that float32 does not hold; in blocks, as x may be large.

    Args:
        x: the examples.
        path: what holds them, for the message.
        rows: which rows of it they are; None where they are the first.
    """
    step = max(1, _BLOCK * len(x) // max(x.size, 1))
    for start in range(0, len(x), step):
        block = x[start : start + step]
        if not np.isfinite(block).all():
            bad = ~np.isfinite(block.reshape(len(block), -1)).all(axis=1)
            row = start + int(np.argmax(bad))
            raise ValueError(
                f"{shown(path)}: x holds values that are NaN or infinite in float32, the first in "
                f"row {row if rows is None else rows[row]}, from 0 on."
            )
