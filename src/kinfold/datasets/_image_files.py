"""Image files, decoded as they are asked for."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from _kinfold_decode import decode, reason
from kinfold.core.stored import Stored
from kinfold.datasets._decoding import Opener, check_decoding
from kinfold.datasets._fingerprints import Fingerprints, look
from kinfold.datasets._images import ImageFiles, Progress, kept_classes
from kinfold.datasets._names import as_class_names, as_text, brief
from kinfold.datasets._pictures import Pictures
from kinfold.datasets._source import Source
from kinfold.datasets._split import Split

# How a file of these formats ends, if it is whole. Others are decoded to find out.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b"\x3b"}
_LONGEST_END = 8


class Files:
    """Finds image files.

    Args:
        root: the folder that `files` are relative to.
        files: paths.
        known: what tells whether a file has changed.
    """

    def __init__(self, root: Path, files: list[str], known: Fingerprints) -> None:
        self.root, self.files, self.known = root, files, known

    def __call__(self, rows: np.ndarray) -> Iterator[list[Opener]]:
        yield [functools.partial(Path, self.root, self.files[row]) for row in rows.tolist()]


def open_image_files(
    found: ImageFiles,
    size: tuple[int, int],
    channels: int,
    progress: Progress | None = None,
) -> Source:
    """Look at image files once; decode them when they are asked for.

    Each file is opened, and its header and its end are read. What cannot be used is named in one
    warning and left out.

    Args:
        found: the files and their classes.
        size: (height, width) of every image, in pixels.
        channels: 3 for RGB, 1 for grey.
        progress: called with (files done, files in all).
    """
    size = check_decoding(size, channels)
    names = as_class_names(found.names, found.source)
    known, bad = look(found.root, found.files, check_image, progress)
    good = np.setdiff1d(np.arange(len(found.files)), list(bad))
    unreadable = [f"{brief(found.files[row])} ({why})" for row, why in bad.items()]
    y, names = kept_classes(found, names, good, unreadable, stacklevel=5)
    files = found.files if len(good) == len(found.files) else [found.files[k] for k in good]
    openers = Files(found.root, files, known.take(good))
    reader = Pictures(openers, y, names, size, channels, found.source)
    split = Split(Stored(reader), y, names, tuple(as_text(file) for file in files))
    return Source(split, _of(found.parts, good), _of(found.groups, good), [])


def _of(column: list[str] | None, rows: np.ndarray) -> list[str] | None:
    return None if column is None else [column[row] for row in rows]


def check_image(file: BinaryIO, size: int) -> str | None:
    """Why an image file cannot be used, by its header and its end; None where nothing is wrong."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            kind, mode = image.format, image.mode
            if kind in _ENDS and mode != "F":
                end = _ENDS[kind]
                file.seek(max(0, size - _LONGEST_END))
                if file.read().endswith(end):
                    return None
    except Exception as error:  # Pillow's readers raise many kinds
        return reason(error)
    file.seek(0)  # such as a JPEG with something after its end
    found = decode(file, (8, 8), 3)
    return found if isinstance(found, str) else None
