"""Images in Parquet files, as Hugging Face datasets write them."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinfold.core.stored import Stored
from kinfold.datasets._arrow import found_in, opened
from kinfold.datasets._decoding import Opener, check_decoding
from kinfold.datasets._names import as_text, either, shown
from kinfold.datasets._parquet_columns import Table, read_table
from kinfold.datasets._parquet_rows import parts_of_rows
from kinfold.datasets._pictures import Pictures
from kinfold.datasets._row_groups import KEPT, RowGroups
from kinfold.datasets._shards import shards
from kinfold.datasets._source import Source
from kinfold.datasets._split import Split, check_classes

if TYPE_CHECKING:
    import pyarrow

IMAGES = ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "x")
_AT_ONCE = 64 << 20  # bytes of encoded images


class ImageColumn:
    """Finds the encoded images of a column by row groups.

    Args:
        files: Parquet files with the same columns.
        counts: of each file the rows of each row group.
        column: that of the images.
        kept: bytes of row groups to keep.
    """

    def __init__(
        self, files: Sequence[Path], counts: Sequence[Sequence[int]], column: str, kept: int
    ) -> None:
        self.groups = RowGroups(files, counts, functools.partial(_column, column), kept)

    def __call__(self, rows: np.ndarray) -> Iterator[list[Opener]]:
        openers: list[Opener] = []
        size = 0
        for images, at, places in self.groups.within(rows):
            for row, place in zip(rows[at].tolist(), places.tolist(), strict=True):
                encoded = images[place].as_py()
                if not isinstance(encoded, dict):
                    encoded = {"bytes": encoded}
                openers.append(functools.partial(_open, encoded, self.groups.place(row)[0].parent))
                size += len(encoded.get("bytes") or b"")
                if size > _AT_ONCE:
                    yield openers
                    openers, size = [], 0
        yield openers


def holds_encoded_images(path: Path) -> bool:
    """Whether a `.parquet` file, or the first of a folder, has a column of encoded images."""
    with opened(shards(path, ".parquet")[0]) as file:
        return _image_column(file) is not None


def open_parquet_images(
    path: Path,
    size: tuple[int, int],
    channels: int,
    group: str | None = None,
    kept: int = KEPT,
) -> Source:
    """Open images in Parquet; labels are read, images only as they are asked for.

    To read one image, its row group is read, and the groups that were read last are kept, encoded
    as they are.

    Args:
        path: a `.parquet` file, or a folder of such files with the same columns, read in order of
            name. Without a column `split`, names such as `train-00000-of-00002.parquet` and
            `test.parquet` tell the parts. The columns are

            - the images: of structs with `bytes` and `path`, as Hugging Face datasets write them,
              where there is one such column, or else the one named `image`, `img`, `images`,
              `picture`, `photo`, `jpg`, `jpeg`, `png` or `x`, also of plain bytes. Where an image
              has a path and no bytes, the file is read, relative to the table;
            - the labels: as `parquet` reads them.
        size: (height, width) of every image, in pixels.
        channels: 3 for RGB, 1 for grey.
        group: a column whose values splits must keep whole.
        kept: bytes of row groups to keep.

    Raises:
        ImportError: pillow or pyarrow is missing.
        ValueError: a file is missing or damaged, or has no such columns, or more than one; labels
            do not fit; there is one class only.
    """
    height, width = check_decoding(size, channels)
    files = shards(path, ".parquet")
    with opened(files[0]) as parquet:
        column = _image_column(parquet)
        if column is None:
            raise ValueError(
                f"{shown(path)} must have one column of encoded images, named {either(IMAGES)}: "
                f"bytes, or structs of bytes and path. {found_in(parquet.schema_arrow)}"
            )
    table = read_table(files, path, lambda *_: [column], group=group)
    check_classes(table.names, path)
    openers = ImageColumn(files, table.counts, column, kept)
    reader = Pictures(openers, table.y, table.names, (height, width), channels, path)
    split = Split(Stored(reader), table.y, table.names, tuple(_names(files, table, column)))
    return Source(split, parts_of_rows(path, files, table), table.groups, files)


def _image_column(file: Any) -> str | None:
    """The column of encoded images; None where there is none, or more than one."""
    schema = file.schema_arrow
    structs = [field.name for field in schema if _has_bytes(field.type)]
    if len(structs) != 1:
        structs = [name for name in structs if name.lower() in IMAGES]
    if structs:
        return structs[0] if len(structs) == 1 else None
    plain = [
        field.name
        for field in schema
        if field.name.lower() in IMAGES and _is_bytes(field.type) and _encoded(file, field.name)
    ]
    return plain[0] if len(plain) == 1 else None


def _has_bytes(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    if not types.is_struct(kind):
        return False
    return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)


def _is_bytes(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _encoded(file: Any, column: str) -> bool:
    """Whether bytes are images rather than paths, which have no NUL: by the first that are there.

    A file without rows or values is taken to hold images.
    """
    for batch in file.iter_batches(64, columns=[column]):
        values = batch.column(0).drop_null()
        if len(values):
            return b"\0" in values[0].as_py()
    return True


def _column(name: str, parquet: Any, group: int, first: int, path: Path) -> Any:
    return parquet.read_row_group(group, columns=[name])[name]


def _open(encoded: dict[str, Any], folder: Path) -> io.BytesIO | Path:
    content, path = encoded.get("bytes"), encoded.get("path")
    if content is not None:
        return io.BytesIO(content)
    if not isinstance(path, str) or not path:
        raise ValueError("null")
    return folder / path


def _names(files: Sequence[Path], table: Table, column: str) -> list[str]:
    """The paths of the images where they tell them apart; else the file and the row in it."""
    paths: list[str | None] = []
    for file in files:
        with opened(file) as parquet:
            kind = parquet.schema_arrow.field(column).type
            if not _has_bytes(kind) or "path" not in {field.name for field in kind}:
                break
            for chunk in parquet.read([f"{column}.path"])[column].chunks:
                paths += chunk.field("path").to_pylist()
    named = [as_text(path) for path in paths if isinstance(path, str) and path]
    if len(set(named)) == len(table.y):
        return named
    return [
        f"{as_text(file.name)}/{row}"
        for file, counts in zip(files, table.counts, strict=True)
        for row in range(sum(counts))
    ]
