"""Examples saved with `numpy.savez`."""

from __future__ import annotations

import os
import zipfile
import zlib

import numpy as np

from kinfold.datasets._split import Split, check_classes


def arrays(path: str | os.PathLike[str]) -> Split:
    """Read examples and labels from an `.npz` file with the arrays `x`, `y` and, if any, `names`.

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
            or `y`; shapes, counts, types or values do not fit; or there is one class only.

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
            f"{path} must hold the arrays 'x' and 'y'. Found: {', '.join(keys) or 'none'}."
        )
    x = _examples(found["x"], path)
    y, names = _labels(found["y"], found.get("names"), len(x), path)
    check_classes(names, path)
    return Split(x, y, names)


def _load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of interest, and the keys of all."""
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
            for key in file.files:
                if key in ("x", "y", "names"):
                    found[key] = np.asarray(file[key])
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
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise ValueError(f"{path}: x holds values that are NaN or infinite in float32.")
    return x[..., np.newaxis] if x.ndim == 3 else x


def _labels(
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
