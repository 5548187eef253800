"""A trained run as an object: it embeds, searches and decides."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from _kinfold_threshold import Calibration
from kinfold.search import Index
from kinfold.thresholds import Threshold
from kinfold.thresholds.held_out import HeldOut
from kinfold.trained import embedder
from kinfold.trained.embedder import Embedder
from kinfold.trained.matching import Match, decide
from kinfold.training.deciding import identity
from kinfold.training.kept import Kept
from kinfold.training.progress import Progress

_BLOCK = 256


class Trained:
    """The model of a run, with what it does to its input, its index and its thresholds.

    Args:
        kept: the model that a run has kept.

    Attributes:
        path: the run folder.
    """

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.path = kept.folder.path
        self.embedder = Embedder(kept.model, kept.shape, kept.config.scaling)
        self._thresholds: dict[tuple[float | None, tuple[int, int]], Threshold] = {}

    @property
    def model(self) -> keras.Model:
        """The Keras model."""
        return self.kept.model

    @functools.cached_property
    def identity(self) -> str:
        """The identity of this model, a hexadecimal digest."""
        return identity(self.model)

    def embed(self, examples: Any, progress: Progress | None = None) -> np.ndarray:
        """Embed examples as in training.

        Args:
            examples: paths of image files, PIL images, or an array [n, ...] of the shape that the
                model takes; one path or one PIL image, too. Images are turned upright, scaled and
                cut as in training, whatever their mode and size.
            progress: hears how far it is; None for nobody.

        Returns:
            float32 [n, d].

        Raises:
            ValueError: a file cannot be read, or arrays have another shape or a range of values
                that the model may take in more than one way.
            TypeError: images for a model of vectors, or nothing that can be embedded.
        """
        if hasattr(examples, "convert") and hasattr(examples, "getexif"):
            examples = [examples]
        told = (progress or Progress()).embedding("the examples")
        paths = embedder.paths_of(examples)
        parts: list[np.ndarray] = []
        if paths is None and not isinstance(examples, Sequence):
            x = np.asarray(examples)
            if not len(x):
                raise ValueError("There is nothing to embed. Received no examples.")
            return self.embedder.of_arrays(x)
        given = examples if paths is None else paths
        if not len(given):
            raise ValueError("There is nothing to embed. Received an empty list.")
        for start in range(0, len(given), _BLOCK):
            some = given[start : start + _BLOCK]
            if paths is not None:
                found = self.embedder.of_files(some)
                embedder.unreadable(found, some)
            elif all(hasattr(one, "getexif") for one in some):
                found = self.embedder.of_pixels([self.embedder.pixels(one) for one in some])
            else:
                return self.embedder.of_arrays(_array(examples))
            parts.append(np.stack([row for row in found if not isinstance(row, str)]))
            told(min(start + _BLOCK, len(given)), len(given))
        return np.concatenate(parts)

    @functools.cached_property
    def index(self) -> Index:
        """The index in the run folder, which `kinfold index RUN DATA` writes.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged, or of another model.
        """
        folder = self.path / "index"
        if not (folder / "index.json").exists():
            raise FileNotFoundError(
                f"There is no index in {self.path} yet. Make one of the things to search in: "
                f"kinfold index {shlex.quote(str(self.path))} DATA"
            )
        found = Index.load(folder)
        found.check(found.dimension or 0, self.identity)
        return found

    @functools.cached_property
    def thresholds(self) -> HeldOut:
        """Embeddings of classes that the model was not trained on, to calibrate decisions by.

        Raises:
            FileNotFoundError: the run has none yet.
            ValueError: they are damaged, or of another model.
        """
        path = self.kept.folder.calibration
        again = f"kinfold calibrate {shlex.quote(str(self.path))} DATA"
        if not path.exists():
            raise FileNotFoundError(
                f"{self.path} is not calibrated yet. Do it on classes that the model was not "
                f"trained on: {again}"
            )
        found = HeldOut.load(path)
        if found.model != self.identity:
            raise ValueError(f"{path} is of another model than the run's. Calibrate anew: {again}")
        return found

    def match(self, examples: Any, k: int = 5, far: float | None = None) -> list[Match]:
        """Find the class of each example, or "unknown".

        Args:
            examples: as `embed` takes them.
            k: how many neighbours to give as evidence.
            far: the share of examples of unknown classes that may be taken for a known one, at the
                size of this index; None for 0.01, or one of the held-out examples if they are few.

        Returns:
            A `Match` for each.

        Raises:
            ValueError, TypeError: as `embed`.
            FileNotFoundError: the run has no index, or is not calibrated.
        """
        threshold = self.threshold(far)
        return decide(self.index.search(self.embed(examples), k), threshold)

    def threshold(self, far: float | None = None) -> Threshold:
        """The distance up to which the nearest item of the index answers, as `match` decides.

        Args:
            far: as `match` takes it.
        """
        state = far, self.index.version
        if state not in self._thresholds:
            self._thresholds = {state: self.thresholds.search(self.index, far)}
        return self._thresholds[state]

    def again(self) -> Trained:
        """The same model, with the index and the calibration as they are now.

        It reads no weights: on JAX they are away while another thread embeds.
        """
        other = Trained(self.kept)
        other.identity = self.identity
        return other

    def calibration(self) -> Calibration:
        """Both thresholds as they are now, as far as the run can tell them."""
        pair = query = None
        why = ""
        try:
            pair = self.thresholds.pairs()
        except (FileNotFoundError, ValueError) as error:
            why = str(error)
        try:
            query = self.threshold()
        except (FileNotFoundError, ValueError) as error:
            why = str(error)
        return Calibration(query, pair, why)


def load(run: str | os.PathLike[str]) -> Trained:
    """Load a run, to embed, search and decide with its model.

    Args:
        run: the run folder.

    Returns:
        An object with `embed`, `match`, `model`, `index` and `thresholds`.

    Raises:
        FileNotFoundError: there is no run, or it has no model yet.
        ValueError: its files are damaged.

    Example:

    >>> import kinfold
    >>> run = kinfold.load("runs/photos")  # doctest: +SKIP
    >>> run.embed(["new.jpg"]).shape  # doctest: +SKIP
    (1, 64)
    """
    return Trained(Kept.load(Path(run)))


def _array(examples: Sequence[Any]) -> np.ndarray:
    try:
        return np.stack([np.asarray(one) for one in examples])
    except ValueError:
        raise ValueError(
            "The examples must be paths, PIL images, or arrays of one shape. Received several "
            "shapes or kinds."
        ) from None
