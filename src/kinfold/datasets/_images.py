"""Image files with their classes, and reading them into memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from _kinfold_decode import decode
from kinfold.core.installed_memory import check_fits
from kinfold.datasets._decoding import check_decoding
from kinfold.datasets._names import as_class_names, as_text, brief, counted, shown
from kinfold.datasets._split import Split, check_classes

EXTENSIONS = (
    ".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
Progress = Callable[[int, int], None]


@dataclass
class ImageFiles:
    """Image files and the class of each; nothing of them is read yet.

    Attributes:
        source: the data as the user named it, for messages.
        root: the folder that `files` are relative to.
        files: paths of the images.
        y: the class of each file.
        names: `names[k]` is the name of class k; a class may have no file.
        parts: the part of each file: train, validation or test; None where the data has no parts.
        none: what to say where no file can be read.
        left_out: what was found and is not read, as messages show it, by the words for it.
        groups: a value for each file; files of one value are to stay together when the data is
            divided. None where that was not asked for.
    """

    source: Path
    root: Path
    files: list[str]
    y: list[int]
    names: list[str]
    none: str
    parts: list[str] | None = None
    left_out: dict[str, list[str]] = field(default_factory=dict)
    groups: list[str] | None = None

    def rows(self, rows: Sequence[int]) -> ImageFiles:
        """These files, without the classes that only others have."""
        other = set(self.y) - {self.y[row] for row in rows}
        kept = [k for k in range(len(self.names)) if k not in other]
        new = {k: n for n, k in enumerate(kept)}
        return replace(
            self,
            files=[self.files[row] for row in rows],
            y=[new[self.y[row]] for row in rows],
            names=[self.names[k] for k in kept],
            parts=None if self.parts is None else [self.parts[row] for row in rows],
            groups=None if self.groups is None else [self.groups[row] for row in rows],
        )


def read_images(
    found: ImageFiles,
    size: tuple[int, int],
    channels: int,
    strict: bool = False,
    progress: Progress | None = None,
) -> tuple[Split, list[str] | None]:
    """Read image files; what cannot be used is named in one warning and left out.

    Returns:
        The images that could be read, and the part of each where the data has parts.
    """
    height, width = check_decoding(size, channels)
    files, names = found.files, as_class_names(found.names, found.source)
    check_fits(
        len(files) * height * width * channels,
        f"{shown(found.source)}: {len(files)} images of this size need",
        "Pass a smaller size, or fewer images.",
    )
    x = np.empty((len(files), height, width, channels), np.uint8)
    unreadable: list[str] = []
    kept: list[int] = []
    pool = ThreadPoolExecutor()  # Pillow decodes outside the interpreter's lock
    try:
        pictures = pool.map(lambda f: decode(found.root / f, (height, width), channels), files)
        for row, picture in enumerate(pictures):
            if isinstance(picture, str):
                unreadable.append(f"{brief(files[row])} ({shown(picture)})")
            else:
                x[len(kept)] = picture
                kept.append(row)
            if progress is not None:
                progress(row + 1, len(files))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for every file
    if unreadable and strict:
        raise ValueError(f"{shown(found.source)}: {counted('unreadable', unreadable)}.")

    y, names = kept_classes(found, names, kept, unreadable, stacklevel=4)
    split = Split(x[: len(kept)], y, names, tuple(as_text(files[row]) for row in kept))
    return split, None if found.parts is None else [found.parts[row] for row in kept]


def kept_classes(
    found: ImageFiles,
    names: tuple[str, ...],
    kept: Sequence[int] | np.ndarray,
    unreadable: list[str],
    stacklevel: int,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Name in one warning what is left out; number the classes that are left.

    Args:
        found: the files.
        names: of the classes, as text.
        kept: the rows of the files that can be read.
        unreadable: what to say of the others.
        stacklevel: of the warning.

    Returns:
        int32 [kept], the class of each file, and the names of these classes.
    """
    classes, y = np.unique(np.array(found.y, int)[kept], return_inverse=True)
    there = set(classes.tolist())
    left_out = {
        "unreadable": unreadable,
        "classes without a readable image": [
            brief(name) for k, name in enumerate(names) if k not in there
        ],
        **found.left_out,
    }
    said = "; ".join(counted(what, entries) for what, entries in left_out.items() if entries)
    if said:
        warnings.warn(f"{shown(found.source)}: left out: {said}.", stacklevel=stacklevel)
    if not len(kept):
        raise ValueError(f"{shown(found.source)} {found.none}")
    names = tuple(names[k] for k in classes)
    check_classes(names, found.source)
    return y.astype(np.int32), names
