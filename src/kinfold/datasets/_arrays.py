"""Examples saved with `numpy.savez`."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kinfold.datasets._labels import check_labels, number_arrays
from kinfold.datasets._memory import check_fits
from kinfold.datasets._names import brief, listed, part_named, shown
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
    with _opened(path) as file:
        keys = _keys(file.files, path)
        if WHOLE not in keys:
            raise ValueError(
                f"{shown(path)} holds a split of its own ({', '.join(keys)}). Read it with "
                "kinfold.datasets.parts."
            )
        return _read(file, keys, path)[WHOLE]


def array_parts(path: str | os.PathLike[str], only: str | None = None) -> dict[str, Split]:
    """Read an `.npz` in the parts that it has, as `parts` does."""
    with _opened(path) as file:
        keys = _keys(file.files, path)
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


def _keys(files: Sequence[str], path: object) -> Keys:
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
        for part, role in _part_and_role(key):
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


def _part_and_role(key: str) -> list[tuple[str, str]]:
    """`x_train` and `train_images` as [("train", "x")]; [] where a key names no part."""
    first, _, second = key.lower().partition("_")
    found = []
    for one, other in ((first, second), (second, first)):
        part = part_named(one)
        found += [(part, role) for role, words in _IN_PARTS.items() if part and other in words]
    return found


def _read(file: Any, keys: Keys, path: object) -> dict[str, Split]:
    names = _array(file, "names", path) if "names" in file.files else None
    x, y = {}, {}
    for part, of in keys.items():
        x[part] = _examples(_array(file, of["x"], path), path)
        y[part] = check_labels(_array(file, of["y"], path), len(x[part]), path)
    shapes = {examples.shape[1:] for examples in x.values()}
    if len(shapes) > 1:
        raise ValueError(
            f"{shown(path)}: the examples of all parts must have one shape. Received "
            f"{', '.join(f'{examples.shape[1:]} ({part})' for part, examples in x.items())}."
        )
    numbers, class_names = number_arrays(list(y.values()), names, path)
    check_classes(class_names, path)
    wholes = {
        part: Split(x[part], of_part, class_names)
        for part, of_part in zip(keys, numbers, strict=True)
    }
    if WHOLE in wholes:
        return wholes
    return {part: select_rows(whole, np.arange(len(whole))) for part, whole in wholes.items()}


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    if not os.path.isfile(path):
        raise ValueError(f"{shown(path)} is not a file.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{shown(path)} is not an .npz file, or is cut short. Write it with numpy.savez(path, "
            "x=x, y=y)."
        )
    with _damage(path, ""):
        file = np.load(path, allow_pickle=False)
    with file:
        yield file


def _array(file: Any, key: str, path: object) -> np.ndarray:
    """One array, read where the file holds what its header claims, and memory is enough."""
    with _damage(path, key):
        needed = _claimed(file, key)
    check_fits(
        needed, f"{shown(path)}: the array {brief(repr(key))} needs", "Save fewer examples in it."
    )
    with _damage(path, key):
        return np.asarray(file[key])


def _claimed(file: Any, key: str) -> int:
    """Bytes that an array and its copy as float32 take."""
    name = key if key in file.zip.namelist() else f"{key}.npy"
    with file.zip.open(name) as member:
        version = np.lib.format.read_magic(member)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(member)
        held = file.zip.getinfo(name).file_size - member.tell()
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > held and not dtype.hasobject:
        raise ValueError(
            f"its header claims the shape {shape}, {claimed:,} bytes, and {held:,} are there"
        )
    return claimed + (0 if dtype in (np.float32, np.uint8) else 4 * math.prod(shape))


@contextlib.contextmanager
def _damage(path: object, key: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # NumPy's and zipfile's readers raise many kinds
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{shown(path)}: {brief(repr(key))} holds Python objects, which are not loaded, "
                "since unpickling can run any code. Save numbers, and strings as a NumPy string "
                "array."
            ) from None
        what = f", the array {brief(repr(key))} is damaged" if key else ""
        said = shown(str(error) or type(error).__name__)
        raise ValueError(f"{shown(path)} cannot be read{what}: {said}") from error


def _examples(x: np.ndarray, path: object) -> np.ndarray:
    if x.dtype.kind not in "fiub":
        raise ValueError(f"{shown(path)}: x must hold numbers. Received the type {x.dtype}.")
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise ValueError(
            f"{shown(path)}: x must be [n, d], [n, height, width] or [n, height, width, "
            f"channels], with no size of 0. Received the shape {x.shape}."
        )
    if x.ndim == 2 or x.dtype != np.uint8:
        with np.errstate(over="ignore"):  # found below, as infinite
            x = x.astype(np.float32, copy=False)
        check_finite(x, path)
    return x[..., np.newaxis] if x.ndim == 3 else x


def check_finite(x: np.ndarray, path: object) -> None:
    """Refuse examples with values that float32 does not hold; in blocks, as x may be large."""
    step = max(1, _BLOCK * len(x) // x.size)
    for start in range(0, len(x), step):
        block = x[start : start + step]
        if not np.isfinite(block).all():
            bad = ~np.isfinite(block.reshape(len(block), -1)).all(axis=1)
            raise ValueError(
                f"{shown(path)}: x holds values that are NaN or infinite in float32, the first in "
                f"row {start + int(np.argmax(bad))}, from 0 on."
            )
