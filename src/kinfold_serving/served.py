"""What can be served: a run, with Keras, or the bundle exported from a run, without Keras."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from _kinfold_found import Neighbours
from _kinfold_threshold import Calibration
from kinfold_bundle import Bundle

if TYPE_CHECKING:
    from kinfold.trained import Trained


SMALL, LARGE = 8, 64  # examples embedded at once, which are sizes that a run fills up to


class Index(Protocol):
    """What is searched in."""

    @property
    def dimension(self) -> int | None:
        """Number of dimensions of an embedding."""

    @property
    def ids(self) -> np.ndarray:
        """Of the items, object [n]."""

    @property
    def labels(self) -> np.ndarray:
        """Of the items, object [n]."""

    def __len__(self) -> int: ...

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Embeddings of these rows, float32 [n, d]."""

    def rows(self, ids: Any) -> list[int]:
        """Where the items of these ids are."""

    def metadata_of(self, item: Any) -> Any:
        """What is known of an item; None where nothing is, or there is no such item."""

    def search(self, embeddings: np.ndarray, k: int) -> Neighbours:
        """The nearest items of embeddings [n, d]."""


class Served(Protocol):
    """What a server needs of a run or a bundle.

    Attributes:
        path: its folder.
        shape: of an example that the model takes: [height, width, channels], or [numbers].
        takes_images: whether it takes the pixels of images.
        sizes: the batch sizes of embedding, each to be tried before the first search.
    """

    path: Path
    shape: tuple[int, ...]
    takes_images: bool
    sizes: tuple[int, ...]

    def embed(self, examples: np.ndarray) -> np.ndarray:
        """float32 [n, d] of uint8 images [n, height, width, channels], or of vectors."""

    def read(self) -> tuple[Index, str, Calibration]:
        """The index, the name of its distance, and the thresholds, as they are now.

        Raises:
            FileNotFoundError: there is no index.
            ValueError: it is empty, damaged, or of another model.
        """


class ServedRun:
    """A run.

    Args:
        run: what `kinfold.load` gave.
    """

    def __init__(self, run: Trained) -> None:
        self.run, self.path, self.shape = run, run.path, run.embedder.shape
        self.takes_images = run.embedder.takes_images
        # A backend that compiles does so once for each.
        self.sizes: tuple[int, ...] = (1, SMALL, LARGE)

    def embed(self, examples: np.ndarray) -> np.ndarray:
        return self.run.embedder.of_arrays(examples)

    def read(self) -> tuple[Index, str, Calibration]:
        fresh = self.run.again()
        if not len(fresh.index):
            raise ValueError(f"The index of {self.path} is empty: there is nothing to search in.")
        return fresh.index, fresh.index.distance.name, fresh.calibration()


class ServedBundle:
    """A folder that `kinfold export --format onnx` wrote.

    Args:
        path: the folder.

    Raises:
        FileNotFoundError, ValueError: as `Bundle`.
    """

    def __init__(self, path: Path) -> None:
        self.bundle = Bundle(path)
        self.path, self.shape = path, self.bundle.shape
        self.takes_images = self.bundle.takes_images
        self.sizes: tuple[int, ...] = (1,)

    def embed(self, examples: np.ndarray) -> np.ndarray:
        return self.bundle.embed(examples)

    def read(self) -> tuple[Index, str, Calibration]:
        fresh = Bundle(self.path)
        return fresh.index, "cosine", fresh.calibration
