"""Embeddings in Parquet files, read as they are needed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinfold.core.readers import AllReadable
from kinfold.core.stored import Stored
from kinfold.datasets._arrow import opened
from kinfold.datasets._parquet import needed_columns, no_embeddings, read_embeddings, width
from kinfold.datasets._parquet_columns import Table, read_table
from kinfold.datasets._row_groups import RowGroups
from kinfold.datasets._shards import parts_by_name, shards
from kinfold.datasets._source import Source
from kinfold.datasets._split import Split, check_classes

# Bytes of embeddings that are kept. Rows drawn at random lie in all row groups, and each is decoded
# whole: beyond this size a folder of .npy files is read many times faster.
KEPT = 1 << 30


class EmbeddingRows(AllReadable):
    """Reads embeddings by row groups.

    Args:
        files: Parquet files with the same columns.
        table: what was read of them.
        size: how many numbers an embedding has.
        kept: bytes of row groups to keep.
    """

    def __init__(self, files: Sequence[Path], table: Table, size: int, kept: int) -> None:
        self.shape: tuple[int, ...] = (size,)
        self.dtype = np.dtype(np.float32)
        decode = functools.partial(_decode, table.examples, size)
        self.groups = RowGroups(files, table.counts, decode, kept)

    def __len__(self) -> int:
        return len(self.groups)

    def read(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape), self.dtype)
        for group, at, places in self.groups.within(rows):
            out[at] = group[places]
        return out


def open_embeddings(path: Path, group: str | None = None, kept: int = KEPT) -> Source:
    """Open embeddings in Parquet; labels are read, embeddings only as they are asked for.

    To read one row, its row group is decoded, and the groups that were read last are kept. Rows in
    random order are slow where `kept` is much less than all embeddings: almost every row then has
    its group decoded again. Values that are not finite, nulls, and lists of another length than the
    first are refused when they are read.

    Args:
        path: a `.parquet` file as `parquet` reads it, or a folder of such files with the same
            columns, read in order of name. Without a column `split`, names such as
            `train-00000-of-00002.parquet` and `test.parquet` tell the parts.
        group: a column whose values splits must keep whole.
        kept: bytes of decoded row groups to keep.

    Raises:
        ImportError: pyarrow is missing.
        ValueError: as `parquet`, or there is no such column.
    """
    files = shards(path, ".parquet")
    table = read_table(files, path, needed_columns, group=group)
    size, count = 0, len(table.y)
    for file, counts in zip(files, table.counts, strict=True):
        if size == 0 and any(counts):
            with opened(file) as parquet:
                size = width(parquet, table.examples, file)
    if not size:
        raise no_embeddings(path, count)
    check_classes(table.names, path)
    x = Stored(EmbeddingRows(files, table, size, kept))
    return Source(
        Split(x, table.y, table.names),
        parts_of_rows(path, files, table),
        table.groups,
        files,
    )


def parts_of_rows(path: Path, files: Sequence[Path], table: Table) -> list[str] | None:
    """The part of each row, by the column of parts or by the names of the files."""
    by_name = parts_by_name(path, files)
    if table.parts is not None or by_name is None:
        return table.parts
    return [
        part for part, counts in zip(by_name, table.counts, strict=True) for _ in range(sum(counts))
    ]


def _decode(
    columns: list[str], size: int, parquet: Any, group: int, first: int, path: Path
) -> np.ndarray:
    return read_embeddings(parquet, columns, path, group, first, size)
