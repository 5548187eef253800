"""Embeddings saved as a Parquet file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinfold.core.installed_memory import check_fits
from kinfold.datasets._arrays import check_finite
from kinfold.datasets._arrow import found_in, opened
from kinfold.datasets._names import brief, either, shown
from kinfold.datasets._parquet_columns import read_table
from kinfold.datasets._split import Split, check_classes
from kinfold.datasets._words import EXAMPLES, PATHS

if TYPE_CHECKING:
    import pyarrow

_NUMBERS = 1 << 22  # read at once
_ROWS = 8192  # read at once, at most


def parquet(path: str | os.PathLike[str]) -> Split:
    """Read embeddings and labels from a Parquet file, as pandas or Hugging Face datasets write it.

    Only these columns are read, a block of rows at a time:

    - the embeddings: the one column of lists of numbers, all of one length; where there are more,
      the one named `embedding`, `embeddings`, `emb`, `vector`, `vectors`, `features` or `x`.
      Without lists, the floating columns that are named alike up to a number, such as `dim_0`,
      `dim_1`, ..., or `0`, `1`, ..., in the order of the numbers. They become float32.
    - the labels: the column named `label`, `labels`, `class`, `target` or `y`, of integers or
      strings. They are numbered anew, 0 to classes - 1, in sorted order. Integers that Hugging Face
      datasets gave names (`ClassLabel`) keep them.

    A column `split` is for `parts`; here all rows are read.

    Args:
        path: the file.

    Returns:
        A `Split` of vectors.

    Raises:
        ImportError: pyarrow is missing.
        ValueError: the file is missing or damaged, has no such columns or more than one, nulls,
            lists of different lengths, values that are not finite in float32, one class only, or
            more embeddings than fit in memory.

    Example:

    >>> import pathlib, tempfile
    >>> import pyarrow, pyarrow.parquet
    >>> from kinfold.datasets import parquet
    >>> columns = {"embedding": [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], "label": ["b", "a", "b"]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "vectors.parquet")
    ...     pyarrow.parquet.write_table(pyarrow.table(columns), path)
    ...     split = parquet(path)
    >>> split.x.shape, split.y.tolist(), split.names
    ((3, 2), [1, 0, 1], ('a', 'b'))
    """
    return parquet_rows(path, with_parts=False)[0]


def parquet_rows(
    path: str | os.PathLike[str], with_parts: bool = True
) -> tuple[Split, list[str] | None]:
    """All rows of a file of embeddings, and the part of each where there is a column of parts."""
    table = read_table([Path(path)], path, needed_columns, with_parts=with_parts)
    with opened(path) as file:
        x = read_embeddings(file, table.examples, path)
    check_classes(table.names, path)
    return Split(x, table.y, table.names), table.parts


def needed_columns(schema: pyarrow.Schema, label: str, path: object) -> list[str]:
    """The columns of embeddings; refuse a table in which it is not clear which."""
    columns = embedding_columns(schema, label)
    if not columns:
        raise ValueError(
            f"{shown(path)} must have one column of embeddings, lists of numbers, named "
            f"{either(EXAMPLES)} if there are more such columns; or floating columns named "
            f"alike up to a number, such as dim_0, dim_1. {found_in(schema)} To list images it "
            f"must have one column of paths, named {either(PATHS)}."
        )
    return columns


def embedding_columns(schema: pyarrow.Schema, label: str) -> list[str]:
    """The one column of lists, or several of numbers; none where it is not clear which."""
    from pyarrow import types

    def is_list(kind: Any) -> bool:
        lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        number = lists and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type))
        return bool(number)

    lists = [field.name for field in schema if is_list(field.type)]
    if len(lists) > 1:
        lists = [name for name in lists if name.lower() in EXAMPLES]
    if lists:
        return lists if len(lists) == 1 else []
    families: dict[str, list[tuple[int, str]]] = {}
    for field in schema:
        numbered = re.fullmatch(r"(.*?)(\d+)", field.name)
        if numbered and types.is_floating(field.type) and field.name != label:
            families.setdefault(numbered[1], []).append((int(numbered[2]), field.name))
    wide = [family for family in families.values() if len(family) > 1]
    return [name for _, name in sorted(wide[0])] if len(wide) == 1 else []


def width(file: Any, columns: list[str], path: object) -> int:
    """How many numbers the first row has; 0 where there is none."""
    for batch in file.iter_batches(1, columns=columns):
        if len(batch):
            return _rows(batch, columns, 0, 0, path).shape[1]
    return 0


def no_embeddings(path: object, count: int) -> ValueError:
    return ValueError(f"{shown(path)} holds no embeddings. It has {count} rows.")


def read_embeddings(
    file: Any,
    columns: list[str],
    path: object,
    group: int | None = None,
    first: int = 0,
    size: int = 0,
) -> np.ndarray:
    """Read embeddings, float32 [n, d], block by block.

    Args:
        file: an open `ParquetFile`.
        columns: those of the embeddings.
        path: the file, for messages.
        group: a row group; None for all.
        first: its first row.
        size: the d that they must have; 0 for any.
    """
    metadata = file.metadata
    groups = list(range(metadata.num_row_groups)) if group is None else [group]
    count = sum(metadata.row_group(k).num_rows for k in groups)
    numbers = _numbers(metadata, columns, groups)
    # As float32, and a list at a time as Arrow holds it.
    needed = max(4 * numbers, 8 * numbers // max(count, 1))
    check_fits(needed, f"{shown(path)}: its embeddings need", "Save fewer of them in a file.")
    rows_at_once = max(1, min(_ROWS, _NUMBERS * count // max(numbers, 1)))
    x, start = np.empty((0, size), np.float32), 0
    for batch in file.iter_batches(rows_at_once, row_groups=groups, columns=columns):
        rows = _rows(batch, columns, x.shape[1], first + start, path)
        if not len(x):
            needed = 4 * count * rows.shape[1]
            check_fits(needed, f"{shown(path)}: its embeddings need", "Save fewer in a file.")
            x = np.empty((count, rows.shape[1]), np.float32)
        with np.errstate(over="ignore"):  # found below, as infinite
            x[start : start + len(rows)] = rows
        start += len(rows)
    if 0 in x.shape:
        raise no_embeddings(path, count)
    if start != count:
        raise ValueError(f"{shown(path)} is damaged: it claims {count} rows and has {start}.")
    check_finite(x, path, np.arange(first, first + count))
    return x


def _rows(batch: Any, columns: list[str], size: int, start: int, path: object) -> np.ndarray:
    """The numbers of a batch, [rows, d]; `start` is the number of its first row."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.null_count:
            row = start + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise ValueError(
                f"{shown(path)}: the column {brief(repr(name))} is null in row {row}, from 0 on."
            )
    if len(columns) > 1:
        return np.stack([batch[name].to_numpy() for name in columns], axis=1)
    return _lists(batch.column(0), columns[0], size, start, path)


def _numbers(metadata: Any, columns: list[str], groups: list[int]) -> int:
    """How many numbers columns hold in these row groups, as the file claims."""
    total = 0
    for group in groups:
        row_group = metadata.row_group(group)
        for k in range(row_group.num_columns):
            column = row_group.column(k)
            if any(column.path_in_schema in (c, *(f"{c}.{e}" for e in _INNER)) for c in columns):
                total += column.num_values
    return total


# Where Parquet puts the numbers of a list.
_INNER = ("list.element", "list.item", "list.array", "bag.array_element", "element", "array")


def _lists(column: Any, name: str, size: int, start: int, path: object) -> np.ndarray:
    """Lists of numbers as [rows, d], d being that of the rows before them."""
    values = column.flatten()
    lengths = column.value_lengths().to_numpy()
    size = size or int(lengths[0])
    other = np.flatnonzero(lengths != size)
    if len(other):
        raise ValueError(
            f"{shown(path)}: the lists in {brief(repr(name))} must be of one length, and that of "
            f"row {start + other[0]}, from 0 on, is {lengths[other[0]]} long, not {size}."
        )
    if values.null_count:
        row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False))) // size
        raise ValueError(
            f"{shown(path)}: the list of {brief(repr(name))} in row {start + row} holds a null."
        )
    return values.to_numpy(zero_copy_only=False).reshape(len(column), size)
