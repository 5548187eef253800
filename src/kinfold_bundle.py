"""An exported model with its index and threshold, which runs without Keras.

`kinfold export RUN --out BUNDLE` writes the folder. This file needs NumPy, Pillow, the runtime of
the model's format (onnxruntime), and for an index PyArrow.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from _kinfold_decode import decode, fitted
from _kinfold_found import Match, Neighbours
from _kinfold_items import Items
from _kinfold_threshold import Calibration

HEAD = "bundle.json"
THRESHOLDS = "thresholds.json"
FORMAT = 2
_BLOCK = 64  # examples that the model is given at once

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

    @property
    def takes_images(self) -> bool:
        """Whether the model takes the pixels of images."""
        return len(self.shape) == 3 and self.about["dtype"] == "uint8"

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
        if not self.takes_images:
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
    def index(self) -> Items:
        """What is searched in.

        Raises:
            FileNotFoundError: the run had no index.
            ValueError: it is empty, or compares in another way than runs do.
        """
        return Items.load(self.path / "index")

    @functools.cached_property
    def calibration(self) -> Calibration:
        """The calibration of the run that was exported."""
        return Calibration.from_dict(json.loads((self.path / THRESHOLDS).read_text("utf-8")))

    def search(self, examples: Any, k: int = 5) -> list[Match]:
        """Find the class of each example, or "unknown", and its nearest items.

        Args:
            examples: as `embed` takes them.
            k: how many items to give.

        Raises:
            ValueError: as `embed`; or the run was not calibrated.
            FileNotFoundError: the bundle has no index.
        """
        index, threshold = self.index, self.calibration.query
        if threshold is None:
            raise ValueError(
                f"{self.path} has no threshold. {self.calibration.why} Then export anew."
            )
        found = index.search(self.embed(examples), k)
        matches = []
        for evidence in map(Neighbours, *found):
            nearest = float(evidence.distances[0])
            known = bool(threshold.accepts(evidence.distances[:1]))
            label = evidence.labels[0] if known else "unknown"
            matches.append(Match(label, known, nearest, evidence, threshold.distance))
        return matches


def session(model: Path) -> Any:
    """What runs an ONNX model, on the processor and without words of its own."""
    try:
        import onnxruntime
    except ImportError:
        raise ImportError("A bundle needs onnxruntime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
