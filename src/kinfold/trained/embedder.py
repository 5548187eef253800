"""Anything that a model takes, brought to its input and embedded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from _kinfold_decode import fitted
from kinfold.datasets import shown
from kinfold.datasets._decoding import decode_all
from kinfold.encoders.scaling import Scaling
from kinfold.training import evaluation

# Batches are filled up to one of these, as a backend that compiles does so for each size.
_SIZES = (1, 8, 64, 256)


class Embedder:
    """A model with what is done to its input.

    Args:
        model: a Keras model.
        shape: of an example that it takes.
        scaling: the range of values that it takes; None for vectors.
    """

    def __init__(self, model: keras.Model, shape: tuple[int, ...], scaling: Scaling | None) -> None:
        self.model, self.shape, self.scaling = model, shape, scaling

    @property
    def takes_images(self) -> bool:
        return len(self.shape) == 3

    def of_arrays(self, x: np.ndarray) -> np.ndarray:
        """float32 [n, d] of examples [n, ...] in the range of values that the model takes."""
        if x.shape[1:] != self.shape:
            raise ValueError(
                f"The model takes arrays of the shape [n, {', '.join(map(str, self.shape))}]. "
                f"Received {list(x.shape)}."
                + (" Pass paths or PIL images of any size." if self.takes_images else "")
            )
        if self.takes_images and self.scaling is not None:
            x = np.asarray(self.scaling.convert(x, "the examples")[0])
        return self.scaled(x)

    def of_files(self, files: Sequence[Path]) -> list[np.ndarray | str]:
        """The embedding [d] of each image file, or why it cannot be read."""
        return self.of_pixels(self.pixels_of(files))

    def pixels_of(self, files: Sequence[Path]) -> list[np.ndarray | str]:
        """Each image file as the model sees it, uint8 [h, w, c], or why it cannot be read."""
        height, width, channels = self._image_shape()
        openers = [partial(Path, file) for file in files]
        return decode_all(openers, (height, width), channels) if openers else []

    def pixels(self, image: Any) -> np.ndarray:
        """A PIL image as the model sees it, uint8 [h, w, c]."""
        height, width, channels = self._image_shape()
        return fitted(image, (height, width), channels)

    def of_pixels(self, found: Sequence[np.ndarray | str]) -> list[np.ndarray | str]:
        """The embedding of each image of bytes; what is no image stays as it is."""
        images = [one for one in found if not isinstance(one, str)]
        rows = iter(self.of_arrays(np.stack(images)) if images else [])
        return [one if isinstance(one, str) else next(rows) for one in found]

    def scaled(self, x: np.ndarray) -> np.ndarray:
        """float32 [n, d] of examples in the very range that the model takes."""
        parts = []
        for start in range(0, len(x), _SIZES[-1]):
            some = x[start : start + _SIZES[-1]]
            size = next(size for size in _SIZES if size >= len(some))
            whole = evaluation.filled(some, size)
            parts.append(evaluation.predicted(self.model, whole)[: len(some)])
        return np.concatenate(parts).astype(np.float32)

    def _image_shape(self) -> tuple[int, int, int]:
        if not self.takes_images:
            raise TypeError(
                f"The model takes vectors of {self.shape[0]} numbers, not images: pass an array "
                f"[n, {self.shape[0]}]."
            )
        height, width, channels = self.shape
        return height, width, channels


def paths_of(examples: Any) -> list[Path] | None:
    """The paths in what `embed` was given; None where it holds none."""
    if isinstance(examples, str | os.PathLike):
        return [Path(examples)]
    if not isinstance(examples, Sequence) or not all(
        isinstance(one, str | os.PathLike) for one in examples
    ):
        return None
    return [Path(one) for one in examples]


def unreadable(found: Sequence[Any], files: Sequence[Path]) -> None:
    """Raise ValueError where a file could not be read."""
    bad = [(file, why) for file, why in zip(files, found, strict=True) if isinstance(why, str)]
    if bad:
        more = f" and {len(bad) - 1} more files cannot be read either" if len(bad) > 1 else ""
        raise ValueError(f"{shown(bad[0][0])} cannot be read: {bad[0][1]}{more}.")
