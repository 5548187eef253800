"""An exported model with its index and threshold, which runs without Keras.

`kinfold export RUN --out BUNDLE` writes the folder. This file needs NumPy, Pillow, the runtime of
the model's format (onnxruntime), and for an index PyArrow.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from _kinfold_decode import decode, fitted
from _kinfold_found import Match, Neighbours

HEAD = "bundle.json"
FORMAT = 1
_BLOCK = 64  # examples that the model is given at once
_ROWS = 1 << 16  # vectors of the index that are compared at once

Path_ = str | os.PathLike[str]


def is_bundle(path: Path_) -> bool:
    """Whether a folder is one that `kinfold export` wrote."""
    return (Path(path) / HEAD).is_file()


class Bundle:
    """A folder that `kinfold export` wrote.

    Args:
        path: the folder.

    Attributes:
        about: what `bundle.json` says.
        shape: of an example: [height, width, channels], or [numbers].

    Raises:
        FileNotFoundError: there is no bundle.
        ValueError: it is of another version, or of a format that needs another runtime.

    Example:

    >>> from kinfold_bundle import Bundle
    >>> Bundle("bundle").embed(["new.jpg"]).shape  # doctest: +SKIP
    (1, 64)
    """

    def __init__(self, path: Path_) -> None:
        self.path = Path(path)
        if not is_bundle(path):
            raise FileNotFoundError(f"There is no bundle in {self.path}: {HEAD} is missing.")
        try:
            self.about: dict[str, Any] = json.loads((self.path / HEAD).read_text("utf-8"))
            version, self.shape = self.about["format"], tuple(self.about["shape"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{self.path / HEAD} is damaged. Export the run anew.") from None
        if version != FORMAT:
            raise ValueError(
                f"{self.path / HEAD} is of another version of Kinfold: its format is {version!r}, "
                f"and this one reads {FORMAT}. Export the run anew."
            )
        if self.about["kind"] != "onnx":
            raise ValueError(
                f"A bundle runs its model by ONNX, and {self.path} holds one in the format "
                f"{self.about['kind']!r}. Export it with --format onnx."
            )

    @functools.cached_property
    def _session(self) -> Any:
        return session(self.path / self.about["model"])

    def embed(self, examples: Any) -> np.ndarray:
        """Embed examples as the run that was exported does.

        Args:
            examples: paths of image files, PIL images, or an array [n, ...] of the shape and dtype
                that the model takes; one path or one PIL image, too.

        Returns:
            float32 [n, d].

        Raises:
            ValueError: a file cannot be read, or arrays of another shape.
        """
        if isinstance(examples, str | os.PathLike) or hasattr(examples, "getexif"):
            examples = [examples]
        if isinstance(examples, np.ndarray):
            return self._of_arrays(examples)
        parts = []
        for start in range(0, len(examples), _BLOCK):
            some = [self._pixels(one) for one in examples[start : start + _BLOCK]]
            parts.append(self._of_arrays(np.stack(some)))
        if not parts:
            raise ValueError("There is nothing to embed. Received an empty list.")
        return np.concatenate(parts)

    def _pixels(self, example: Any) -> np.ndarray:
        if isinstance(example, np.ndarray):
            return example
        if len(self.shape) != 3 or self.about["dtype"] != "uint8":
            raise ValueError(
                f"The model takes arrays of {self.about['dtype']} of the shape "
                f"{list(self.shape)}, not images."
            )
        height, width, channels = self.shape
        if hasattr(example, "getexif"):
            return fitted(example, (height, width), channels)
        found = decode(Path(example), (height, width), channels)
        if isinstance(found, str):
            raise ValueError(f"{example} cannot be read: {found}.")
        return found

    def _of_arrays(self, x: np.ndarray) -> np.ndarray:
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"The model takes arrays of the shape {['n', *self.shape]}. "
                f"Received {list(x.shape)}."
            )
        name = self._session.get_inputs()[0].name
        blocks = (x[start : start + _BLOCK] for start in range(0, len(x), _BLOCK))
        parts = [
            self._session.run(None, {name: block.astype(self.about["dtype"], copy=False)})[0]
            for block in blocks
        ]
        return np.concatenate(parts).astype(np.float32, copy=False)

    @functools.cached_property
    def _index(self) -> tuple[np.ndarray, dict[str, list[Any]]]:
        """Vectors of unit norm, float32 [m, d], and the columns of their items."""
        folder = self.path / "index"
        try:
            head = json.loads((folder / "index.json").read_text("utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"There is no index in {self.path}: the run had none. Write it with kinfold index, "
                "and export anew."
            ) from None
        import pyarrow.parquet

        vectors = np.load(folder / head["files"]["vectors"])
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        table = pyarrow.parquet.read_table(folder / head["files"]["items"])
        columns = {name: table[name].to_pylist() for name in ("id", "label", "metadata")}
        columns["metadata"] = [one and json.loads(one) for one in columns["metadata"]]
        return vectors / np.maximum(norms, 1e-12), columns

    def search(self, examples: Any, k: int = 5) -> list[Match]:
        """Find the class of each example, or "unknown", and its nearest items.

        Args:
            examples: as `embed` takes them.
            k: how many items to give.

        Raises:
            ValueError: as `embed`; or the run was not calibrated.
            FileNotFoundError: the bundle has no index.
        """
        vectors, columns = self._index
        if self.about["threshold"] is None:
            raise ValueError(
                f"{self.path} has no threshold: the run was not calibrated. Do it with kinfold "
                "calibrate, and export anew."
            )
        x = self.embed(examples)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        distances, items = _nearest(x, vectors, min(k, len(vectors)))
        limit = float(self.about["threshold"]["distance"])
        found = []
        for row, at in zip(distances, items, strict=True):
            ids, labels, metadata = (_taken(columns[name], at) for name in columns)
            known = bool(len(row)) and bool(row[0] <= limit)
            label = labels[0] if known else "unknown"
            nearest = float(row[0]) if len(row) else float("inf")
            evidence = Neighbours(ids, row, labels, metadata)
            found.append(Match(label, known, nearest, evidence, limit))
        return found


def session(model: Path) -> Any:
    """What runs an ONNX model, on the processor and without words of its own."""
    try:
        import onnxruntime
    except ImportError:
        raise ImportError("A bundle needs onnxruntime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _nearest(x: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine distances and rows of the k nearest of unit vectors, [n, k], equal ones by row."""
    nearest, items = np.empty((len(x), 0), np.float32), np.empty((len(x), 0), np.int64)
    for start in range(0, len(vectors), _ROWS):
        d = np.maximum(1.0 - x @ vectors[start : start + _ROWS].T, 0.0)
        at = np.broadcast_to(np.arange(start, start + d.shape[1]), d.shape)
        nearest, items = np.hstack([nearest, d]), np.hstack([items, at])
        few = np.argpartition(nearest, min(k, nearest.shape[1] - 1), axis=1)[:, :k]
        few.sort(axis=1)
        nearest = np.take_along_axis(nearest, few, axis=1)
        items = np.take_along_axis(items, few, axis=1)
    order = np.argsort(nearest, axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1), np.take_along_axis(items, order, axis=1)


def _taken(column: Sequence[Any], at: np.ndarray) -> np.ndarray:
    out = np.empty(len(at), object)
    out[:] = [column[row] for row in at]
    return out
