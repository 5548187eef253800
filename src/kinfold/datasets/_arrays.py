"""Examples saved with `numpy.savez`."""

from __future__ import annotations

import os
import zipfile
import zlib

import numpy as np

from kinfold.datasets._split import Split, check_classes

# What people call examples and labels in files.
EXAMPLES = ("embedding", "embeddings", "emb", "vector", "vectors", "features", "x")
LABELS = ("label", "labels", "class", "target", "y")
_BLOCK = 1 << 22  # elements checked at once


def arrays(path: str | os.PathLike[str]) -> Split:
    """Read examples and labels from an `.npz` file with the arrays `x`, `y` and, if any, `names`.

    Where there is no `x`, one array named `embedding`, `embeddings`, `emb`, `vector`, `vectors` or
    `features` takes its place; where there is no `y`, one named `label`, `labels`, `class` or
    `target`.

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
            or `y` or has several in their place; shapes, counts, types or values do not fit; or
            there is one class only.

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
    found, keys = _load(path)
    if "x" not in found or "y" not in found:
        raise ValueError(
            f"{path} must hold the arrays 'x' and 'y', or 'embeddings' and 'labels'. "
            f"Found: {', '.join(keys) or 'none'}."
        )
    x = _examples(found.pop("x"), path)
    y, names = as_labels(found["y"], found.get("names"), len(x), path)
    check_classes(names, path)
    return Split(x, y, names)


def _load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of interest, as "x", "y" and "names", and the keys of all."""
    if not os.path.isfile(path):
        raise ValueError(f"{path} is not a file.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is not an .npz file, or is cut short. Write it with numpy.savez(path, x=x, "
            "y=y)."
        )
    found, key = {}, ""
    try:
        with np.load(path, allow_pickle=False) as file:
            for name, others in (("x", EXAMPLES), ("y", LABELS), ("names", ())):
                same = [k for k in file.files if k in others]
                for key in [name] if name in file.files else same if len(same) == 1 else []:
                    found[name] = np.asarray(file[key])
            return found, file.files
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path}: {key!r} holds Python objects, which are not loaded, since unpickling "
                "can run any code. Save numbers, and strings as a NumPy string array."
            ) from None
        raise ValueError(f"{path} cannot be read, the array {key!r} is damaged: {error}") from error


def _examples(x: np.ndarray, path: object) -> np.ndarray:
    if x.dtype.kind not in "fiub":
        raise ValueError(f"{path}: x must hold numbers. Received the type {x.dtype}.")
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise ValueError(
            f"{path}: x must be [n, d], [n, height, width] or [n, height, width, channels], with "
            f"no size of 0. Received the shape {x.shape}."
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
                f"{path}: x holds values that are NaN or infinite in float32, the first in row "
                f"{start + int(np.argmax(bad))}, from 0 on."
            )


def as_labels(
    y: np.ndarray, names: np.ndarray | None, count: int, path: object
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels int32 `[n]` from 0, and the names of the classes."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise ValueError(f"{path}: y must be [n] or [n, 1]. Received the shape {y.shape}.")
    if len(y) != count:
        raise ValueError(f"{path}: x holds {count} examples but y holds {len(y)} labels.")
    if y.dtype.kind not in "iuUS":
        raise ValueError(
            f"{path}: y must hold integers or strings. Received the type {y.dtype}; convert "
            "labels with y.astype(int) if they are whole numbers."
        )
    labels, y = np.unique(np.char.decode(y) if y.dtype.kind == "S" else y, return_inverse=True)
    y = y.astype(np.int32)
    if names is None:
        return y, tuple(str(label) for label in labels)
    if names.ndim != 1 or names.dtype.kind != "U" or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{path}: names must be a list of strings, to name integer labels. Received names of "
            f"type {names.dtype} and shape {names.shape}, and labels of type {labels.dtype}."
        )
    if labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(
            f"{path}: {len(names)} names serve labels 0 to {len(names) - 1}, but y holds labels "
            f"from {labels.min()} to {labels.max()}."
        )
    return y, tuple(str(names[label]) for label in labels)
