"""Tables that list images: a column of paths, one of labels, and perhaps one of parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

from kinfold.datasets._csv import csv_columns
from kinfold.datasets._folder import visible
from kinfold.datasets._images import EXTENSIONS, ImageFiles, Progress, read_images
from kinfold.datasets._names import brief, either, listed, part_named, shown
from kinfold.datasets._parquet_listing import listing_columns
from kinfold.datasets._split import Split
from kinfold.datasets._words import LABELS, PARTS, PATHS

# The names of all columns, and the columns that are wanted by their names in lower case.
Table = tuple[list[str], dict[str, list[str]]]

READERS: dict[str, Callable[[Path, Collection[str]], Table]] = {
    ".csv": csv_columns,
    ".tsv": csv_columns,
    ".parquet": listing_columns,
}


def image_list(
    path: str | os.PathLike[str],
    size: tuple[int, int] = (224, 224),
    channels: int = 3,
    strict: bool = False,
    progress: Progress | None = None,
) -> Split:
    r"""Read the images that a `.csv`, `.tsv` or `.parquet` file lists.

    The first line of a `.csv` or `.tsv` file names the columns. Upper and lower case are the same:

    - the paths: `path`, `file`, `image`, `img`, `filename`, `file_name`, `filepath`, `file_path`,
      `image_path` or `img_path`; relative to the folder of the table, or, where the first image is
      not there, to the one folder beside the table that has it;
    - the labels: `label`, `labels`, `class`, `target` or `y`. They are taken as text, so that `1`
      and `01` are two classes;
    - the parts: `split`, of `train`, `val` and `test`, if there is such a column; see `parts`.

    Images are read as `image_folder` reads them. A file that is listed twice is read once.

    Args:
        path: the table.
        size: (height, width) of every image returned, in pixels.
        channels: 3 for RGB, 1 for grey.
        strict: refuse unreadable files instead of leaving them out.
        progress: called with (files done, files in all).

    Returns:
        A `Split` of all rows, with `x` uint8 `[n, height, width, channels]`.

    Raises:
        ImportError: pillow is missing, or pyarrow for a `.parquet` file.
        ValueError: the table is missing or damaged or has no such columns, a row has no path or
            label, a file has two labels, there are fewer than two classes with images, or the
            images do not fit in memory.

    Example:

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from kinfold.datasets import image_list
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("red", "blue"):
    ...         Image.new("RGB", (8, 8), name).save(pathlib.Path(folder, name + ".png"))
    ...     table = pathlib.Path(folder, "labels.csv")
    ...     _ = table.write_text("path,label\nred.png,warm\nblue.png,cold\n")
    ...     split = image_list(table, size=(8, 8))
    >>> split.x.shape, split.y.tolist(), split.names, split.files
    ((2, 8, 8, 3), [1, 0], ('cold', 'warm'), ('red.png', 'blue.png'))
    """
    return read_images(find_listed(Path(path)), size, channels, strict, progress)[0]


def listing_in(folder: Path) -> Path | None:
    """The table in a folder without class folders, where there is one."""
    tables = [e for e in visible(folder) if e.suffix.lower() in READERS and e.is_file()]
    return tables[0] if len(tables) == 1 else None


def find_listed(table: Path, group: str | None = None) -> ImageFiles:
    """Image files as a table lists them, in the order of its rows.

    `group` names a column whose values `ImageFiles.groups` is to hold.
    """
    if not table.is_file():
        raise ValueError(f"{shown(table)} is not a file.")
    if table.suffix.lower() not in READERS:
        raise ValueError(f"{shown(table)} must be a {either(list(READERS))} file.")
    columns = _columns(table, group)
    paths, labels = columns["paths"], columns["labels"]
    assert paths is not None
    assert labels is not None
    if os.sep == "\\":
        paths = columns["paths"] = [path.replace("\\", "/") for path in paths]
    rows, repeated = _once(paths, columns, table)
    if repeated:
        columns = {
            what: column and [column[row] for row in rows] for what, column in columns.items()
        }
        paths, labels = columns["paths"] or [], columns["labels"] or []
    root = _root(table.parent, paths[0])
    names = sorted(set(labels))
    number = {name: k for k, name in enumerate(names)}
    return ImageFiles(
        table,
        root,
        paths,
        [number[label] for label in labels],
        names,
        f"lists no image that can be read. Paths are relative to {shown(root)}, and images are "
        f"files with one of the extensions {', '.join(EXTENSIONS)}.",
        columns["parts"],
        {"files that are listed again": repeated},
        columns["groups"],
    )


def _columns(table: Path, group: str | None) -> dict[str, list[str] | None]:
    """By what they hold the columns of a table, None where there is no such column."""
    asked = (
        ("paths", PATHS),
        ("labels", LABELS),
        ("parts", PARTS),
        ("groups", () if group is None else (group.lower(),)),
    )
    wanted = {word for _, words in asked for word in words}
    names, read = READERS[table.suffix.lower()](table, wanted)
    found: dict[str, list[str] | None] = {}
    for what, words in asked:
        same = [name for name in read if name.lower() in words]
        if what == "groups" and words and len(same) != 1:
            raise ValueError(
                f"{shown(table)} must have one column named {brief(group)}, to keep the rows of "
                f"its values together. Found: {listed([brief(name) for name in names])}."
            )
        if len(same) > 1 or (not same and what in ("paths", "labels")):
            raise ValueError(
                f"{shown(table)} must have one column of {what}, named {either(words)}, to list "
                f"images. Found: {listed([brief(name) for name in names])}."
            )
        found[what] = read[same[0]] if same else None
    paths, labels, parts = found["paths"], found["labels"], found["parts"]
    assert paths is not None
    assert labels is not None
    for n, (path, label) in enumerate(zip(paths, labels, strict=True)):
        if not path.strip() or not label.strip() or "\0" in path:
            what = "path" if not path.strip() or "\0" in path else "label"
            raise ValueError(f"{shown(table)}: row {n}, from 0 on, has no {what}.")
    if not paths:
        raise ValueError(f"{shown(table)} lists no images: it has no rows.")
    if parts is not None:
        found["parts"] = _parts(parts, table)
    return found


def _parts(words: list[str], table: Path) -> list[str]:
    parts = {word: part_named(word) for word in set(words)}
    for n, word in enumerate(words):
        if parts[word] is None:
            raise ValueError(
                f"{shown(table)}: the column of parts must hold train, val or test. Received in "
                f"row {n}, from 0 on: {brief(word)}."
            )
    return [str(parts[word]) for word in words]


def _once(
    paths: list[str], columns: dict[str, list[str] | None], table: Path
) -> tuple[list[int], list[str]]:
    """Each file once: the first rows of all files, and the paths that are left out as repeats.

    A file with two labels or two parts is refused.
    """
    first: dict[str, int] = {}
    repeated = []
    for row, path in enumerate(paths):
        same = first.setdefault(os.path.normpath(path), row)
        if same == row:
            continue
        for what in ("labels", "parts", "groups"):
            column = columns[what]
            if column is not None and column[same] != column[row]:
                raise ValueError(
                    f"{shown(table)} lists {brief(path)} with two {what}, {brief(column[same])} "
                    f"and {brief(column[row])}. An image must be listed once."
                )
        repeated.append(brief(path))
    return list(first.values()), repeated


def _root(beside: Path, first: str) -> Path:
    """The folder that paths are relative to: the table's, or the one in it that has the first."""
    if not beside.joinpath(first).exists():
        inner = [e for e in visible(beside) if e.is_dir() and e.joinpath(first).is_file()]
        if len(inner) == 1:
            return inner[0]
    return beside
