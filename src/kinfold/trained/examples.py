"""What is to be embedded: files and tables of any kind, with a name and perhaps a label each."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinfold.core.stored import Stored
from kinfold.datasets import DATA_FORMS, shown
from kinfold.datasets._folder import is_image
from kinfold.datasets._names import as_text
from kinfold.datasets._parts import check_kind, holds_images, open_source
from kinfold.trained.embedder import Embedder

BLOCK = 256

Found = tuple[list[int], np.ndarray, dict[int, str]]


@dataclass(frozen=True)
class Examples:
    """Examples that are read and embedded as they are needed.

    Attributes:
        names: of each, unique: the path of a file, relative to the data where it is a folder.
        labels: of each; None where nothing tells it.
        embedded: embeds those of some rows: which could be read, their embeddings, and why the
            others could not.
        folder: what the names are relative to, where they are files.
        source: the data.
        state: changes if the data does.
    """

    names: list[str]
    labels: list[str | None]
    embedded: Callable[[range], Found]
    folder: Path | None
    source: Path
    state: str

    def __len__(self) -> int:
        return len(self.names)

    @functools.cached_property
    def labelled(self) -> bool:
        """Whether any example has a label."""
        return any(label is not None for label in self.labels)

    def gathered(
        self, rows: range, told: Callable[[int, int], None]
    ) -> tuple[list[int], list[np.ndarray], dict[str, str]]:
        """Embed those of some rows, so many at a time.

        Args:
            rows: of the examples.
            told: called with how many are done, and how many examples there are.

        Returns:
            Which could be read; their embeddings, in arrays that follow one another; and by its
            name why another could not.
        """
        read: list[int] = []
        vectors: list[np.ndarray] = []
        bad: dict[str, str] = {}
        for start in range(rows.start, rows.stop, BLOCK):
            some = range(start, min(start + BLOCK, rows.stop))
            good, found, wrong = self.embedded(some)
            read += good
            vectors += [found] if good else []
            bad |= {self.names[row]: why for row, why in wrong.items()}
            told(some.stop, len(self))
        return read, vectors, bad


def find(data: str, embedder: Embedder, told: Callable[[int, int], None] | None = None) -> Examples:
    """Find the examples of some data: all its parts, and folders without classes, too.

    Args:
        data: an image file, a folder of images, in class folders or not; or other data as
            `kinfold.datasets.DATA_FORMS` says.
        embedder: of the model that is to embed them.
        told: called with (files done, files in all) while files are looked at.

    Raises:
        FileNotFoundError: there is no such data.
        ValueError: nothing in it is what the model takes.
    """
    path = Path(data)
    if not path.exists():
        raise FileNotFoundError(f"There is no {shown(data)}. DATA is {DATA_FORMS}")
    if embedder.takes_images and (is_image(path) or _holds_image_files(path)):
        return _files(path, embedder)
    check_kind(path)
    height, width, channels = embedder.shape if embedder.takes_images else (1, 1, 1)
    if holds_images(path) and not embedder.takes_images:
        raise ValueError(f"{shown(data)} holds images; the model takes vectors.")
    source = open_source(path, (height, width), channels, progress=told)
    split = source.split
    if split.x.shape[1:] != embedder.shape:
        raise ValueError(
            f"{shown(data)} holds examples of the shape {list(split.x.shape[1:])}; the model takes "
            f"{list(embedder.shape)}."
        )
    x: Any = split.x
    if embedder.takes_images and embedder.scaling is not None:
        x = embedder.scaling.convert(x, shown(data))[0]
    names = list(split.files) if split.files is not None else []
    if len(set(names)) < len(split):
        names = [f"{path.name}#{row}" for row in range(len(split))]

    def embedded(rows: range) -> Found:
        block = x[rows.start : rows.stop]
        bad = x.unreadable if isinstance(x, Stored) else {}
        good = [row for row in rows if row not in bad]
        at = np.array(good, int) - rows.start
        found = embedder.scaled(block[at]) if good else np.empty((0, 0), np.float32)
        return good, found, {row: bad[row] for row in rows if row in bad}

    labels: list[str | None] = [split.names[k] for k in split.y.tolist()]
    return Examples(names, labels, embedded, None, path.resolve(), _state(source.kept_in))


def _holds_image_files(path: Path) -> bool:
    """Whether a folder holds image files, at any depth, and no table that lists them."""
    if not path.is_dir() or any(one.suffix in (".csv", ".tsv") for one in path.iterdir()):
        return False
    return next(_walk(path), None) is not None


def _files(path: Path, embedder: Embedder) -> Examples:
    root = path.parent if path.is_file() else path
    files = [path] if path.is_file() else sorted(_walk(path))
    names = [as_text(file.relative_to(root).as_posix()) for file in files]
    labels: list[str | None] = [
        None if file.parent == root else as_text(file.parent.name) for file in files
    ]

    def embedded(rows: range) -> Found:
        found = embedder.of_files(files[rows.start : rows.stop])
        good = [row for row, one in zip(rows, found, strict=True) if not isinstance(one, str)]
        vectors = [one for one in found if not isinstance(one, str)]
        bad = {row: one for row, one in zip(rows, found, strict=True) if isinstance(one, str)}
        return good, np.stack(vectors) if vectors else np.empty((0, 0), np.float32), bad

    return Examples(names, labels, embedded, root, path.resolve(), _state(files))


def _state(files: Sequence[Path]) -> str:
    """A digest of the names, sizes and times of files."""
    digest = hashlib.sha256()
    for file in files:
        facts = file.stat()
        digest.update(f"{file}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode(errors="replace"))
    return digest.hexdigest()


def _walk(path: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(path):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in files:
            file = Path(folder, name)
            if not name.startswith(".") and is_image(file):
                yield file
