"""Data of any kind, in the parts that its owner divided it into."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from _kinfold_text import DATA_FORMS
from kinfold.core.stored import Stored
from kinfold.datasets._arrays import array_parts
from kinfold.datasets._folder import find_classes, visible
from kinfold.datasets._image_files import open_image_files
from kinfold.datasets._images import ImageFiles, Progress, read_images
from kinfold.datasets._layout import check_not_flat, find_parts, survey
from kinfold.datasets._listing import find_listed, listing_in
from kinfold.datasets._names import brief, shown
from kinfold.datasets._on_disk import check_labels_beside, holds_arrays, open_arrays
from kinfold.datasets._parquet_images import holds_encoded_images, open_parquet_images
from kinfold.datasets._parquet_listing import is_listing
from kinfold.datasets._parquet_rows import open_embeddings
from kinfold.datasets._shards import holds_shards, shards
from kinfold.datasets._source import Source
from kinfold.datasets._split import Split, select_rows
from kinfold.datasets._webdataset import check_uncompressed, open_tars
from kinfold.datasets._words import WHOLE

_ORDER = ("train", "validation", "test")


def parts(
    path: str | os.PathLike[str],
    size: tuple[int, int] = (224, 224),
    channels: int = 3,
    only: str | None = None,
    progress: Progress | None = None,
    as_needed: bool = False,
) -> dict[str, Split]:
    """Read data that may be divided by its owner into parts to train, choose and test on.

    Divided are:

    - a folder that holds `train/`, `val/` (or `valid/`, `validation/`, `dev/`) and `test/`, each
      with class folders, as `image_folder` reads them;
    - a table of images with a column `split`, as `image_list` reads it, or of embeddings, as
      `parquet` does;
    - an `.npz` file with `x_train`, `y_train`, `x_val`, `y_val`, `x_test`, `y_test`, or
      `train_images`, `train_labels` and so on, as `arrays` reads them.

    A folder without class folders is read by the one table in it.

    Args:
        path: the data.
        size: (height, width) of every image that is read from a file, in pixels.
        channels: of these images, 3 for RGB, 1 for grey.
        only: a part; where the data has it, only this part is read, and where not, all is read as
            one.
        progress: called with (files done, files in all) while images are read, or looked at.
        as_needed: read labels and names now, and each example when it is asked for: `x` of the
            splits is then a `Stored`, which `ClassBalancedBatches`, `RetrievalEvaluation` and
            slices read from. Data of any size fits. Images are looked at (header and end of each
            file); one that turns out to be damaged when it is decoded is replaced by another of its
            class, and `x.unreadable` names it.

    Returns:
        The parts that there are: "train", "validation", "test"; or {"all": split} where the data
        is not divided. Labels are numbered from 0 in each part, and the same name in two parts is
        the same class.

    Raises:
        ImportError: pillow or pyarrow is missing.
        ValueError: as the functions above, or the data is of another kind.

    Example:

    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from kinfold.datasets import parts
    >>> x, y = np.eye(4), [0, 1, 0, 1]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "vectors.npz")
    ...     np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)
    ...     found = parts(file)
    >>> {name: len(split) for name, split in found.items()}
    {'train': 4, 'test': 4}
    """
    path = Path(path)
    check_kind(path)
    if as_needed:
        return divided(open_source(path, size, channels, only, progress=progress), only)
    if path.suffix.lower() == ".npz":
        return array_parts(path, only)
    if _is_of_files(path):
        return _image_parts(_find_images(path), size, channels, only, progress)
    found = divided(open_source(path, size, channels, only), only)
    return {part: replace(split, x=np.asarray(split.x)) for part, split in found.items()}


def open_source(
    path: Path,
    size: tuple[int, int] = (224, 224),
    channels: int = 3,
    only: str | None = None,
    group: str | None = None,
    progress: Progress | None = None,
) -> Source:
    """Open data whose examples are read as they are needed.

    `group` names a column of a table whose values are to be kept whole when the data is divided.
    """
    check_kind(path)
    if _is_of_tars(path):
        return open_tars(path, size, channels, group)
    if _is_of_arrays(path):
        if group is not None:
            raise ValueError(
                f"{shown(path)} holds arrays, which have no column {brief(group)} to keep "
                "together. List the examples in a table."
            )
        return open_arrays(path)
    if not _is_of_files(path):
        if holds_encoded_images(path):
            return open_parquet_images(path, size, channels, group)
        return open_embeddings(path, group)
    found = _find_images(path, group)
    if only is not None and found.parts is not None and only in found.parts:
        found = found.rows([row for row, part in enumerate(found.parts) if part == only])
    return open_image_files(found, size, channels, progress)


def divided(source: Source, only: str | None = None) -> dict[str, Split]:
    """The parts of a source; {"all": split} where it has none."""
    found = _divided(source.split, source.parts, only)
    x = source.split.x
    if source.parts is not None and isinstance(x, Stored):
        x.reader.keep_apart(np.array([_ORDER.index(part) for part in source.parts]))
    return found


def holds_images(path: Path) -> bool:
    """Whether data is encoded images, which are read at any size."""
    return (
        _is_of_tars(path)
        or _is_of_files(path)
        or (_is_parquet(path) and holds_encoded_images(path))
    )


def check_kind(path: Path) -> None:
    """Refuse what no reader is for; nothing is read."""
    if path.is_dir() or path.suffix.lower() in (".npz", ".parquet", ".csv", ".tsv", ".tar"):
        return
    if path.suffix.lower() == ".npy":
        check_labels_beside(path)
        return
    check_uncompressed(path)
    raise ValueError(f"{shown(path)} is a file of a kind that is not read. DATA is {DATA_FORMS}")


def _is_of_files(path: Path) -> bool:
    """Whether data is image files, in folders or listed in a table."""
    if _is_of_tars(path) or _is_of_arrays(path):
        return False
    return not _is_parquet(path) or is_listing(shards(path, ".parquet")[0])


def _is_of_tars(path: Path) -> bool:
    return path.suffix.lower() == ".tar" or (holds_shards(path, ".tar") and _is_flat(path))


def _is_of_arrays(path: Path) -> bool:
    if not path.is_dir():
        return path.suffix.lower() in (".npz", ".npy")
    return holds_arrays(path) and _is_flat(path)


def _is_parquet(path: Path) -> bool:
    if not path.is_dir():
        return path.suffix.lower() == ".parquet"
    return holds_shards(path, ".parquet") and _is_flat(path)


def _is_flat(path: Path) -> bool:
    """Whether a path is a folder without folders in it."""
    return path.is_dir() and not any(entry.is_dir() for entry in visible(path))


def _find_images(path: Path, group: str | None = None) -> ImageFiles:
    if not path.is_dir():
        return find_listed(path, group)
    table = listing_in(path)
    if table is not None and group is not None:
        return find_listed(table, group)
    if group is not None:
        raise ValueError(
            f"{shown(path)} has no table: a column to keep together, {brief(group)}, is one of a "
            ".csv, .tsv or .parquet file that lists the images."
        )
    found = survey(path)
    if found.parts and not found.classes:
        return find_parts(path, found)
    if table is not None and len(found.classes) < 2:
        return find_listed(table, group)
    check_not_flat(path, found)
    return find_classes(path)


def _image_parts(
    found: ImageFiles,
    size: tuple[int, int],
    channels: int,
    only: str | None,
    progress: Progress | None,
) -> dict[str, Split]:
    of = found.parts
    if of is not None:
        order = sorted(range(len(of)), key=lambda row: _ORDER.index(of[row]))
        if only in of:
            order = [row for row in order if of[row] == only]
        found = found.rows(order)  # so that parts are slices, not copies
    split, part_of = read_images(found, size, channels, progress=progress)
    return _divided(split, part_of, only)


def _divided(split: Split, part_of: Sequence[str] | None, only: str | None) -> dict[str, Split]:
    if part_of is None or (only is not None and only not in part_of):
        return {WHOLE: split}
    names = np.array(part_of)
    wanted = _ORDER if only is None else (only,)
    return {
        part: select_rows(split, np.flatnonzero(names == part))
        for part in wanted
        if part in part_of
    }
