"""Embeddings saved as a Parquet file."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from kinfold.datasets._arrays import check_finite
from kinfold.datasets._arrow import class_names, column_values, found_in, opened
from kinfold.datasets._labels import number
from kinfold.datasets._memory import check_fits
from kinfold.datasets._names import brief, either, listed, part_named, shown
from kinfold.datasets._split import Split, check_classes
from kinfold.datasets._words import EXAMPLES, LABELS, PARTS, PATHS

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
    with opened(path) as file:
        schema = file.schema_arrow
        label = _label_column(schema, path)
        columns = embedding_columns(schema, label)
        if not columns:
            raise ValueError(
                f"{shown(path)} must have one column of embeddings, lists of numbers, named "
                f"{either(EXAMPLES)} if there are more such columns; or floating columns named "
                f"alike up to a number, such as dim_0, dim_1. {found_in(schema)} To list images it "
                f"must have one column of paths, named {either(PATHS)}."
            )
        x = _examples(file, columns, path)
        y, names = _labels(file.read([label])[label], class_names(schema, label), path)
        parts = _parts(file, schema, path) if with_parts else None
    check_classes(names, path)
    return Split(x, y, names), parts


def _label_column(schema: pyarrow.Schema, path: object) -> str:
    found = [name for name in schema.names if name.lower() in LABELS]
    if len(found) != 1:
        raise ValueError(
            f"{shown(path)} must have one column of labels, named {either(LABELS)}. "
            f"{found_in(schema)}"
        )
    return found[0]


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


def _examples(file: Any, columns: list[str], path: object) -> np.ndarray:
    """float32 [n, d], filled block by block."""
    count = file.metadata.num_rows
    numbers = _numbers(file, columns)
    # As float32, and a list at a time as Arrow holds it.
    needed = max(4 * numbers, 8 * numbers // max(count, 1))
    check_fits(needed, f"{shown(path)}: its embeddings need", "Save fewer of them in a file.")
    rows_at_once = max(1, min(_ROWS, _NUMBERS * count // max(numbers, 1)))
    x, start = np.empty((0, 0), np.float32), 0
    for batch in file.iter_batches(rows_at_once, columns=columns):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if column.null_count:
                row = start + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
                raise ValueError(
                    f"{shown(path)}: the column {brief(repr(name))} is null in row {row}, from 0 "
                    "on."
                )
        if len(columns) > 1:
            rows = np.stack([batch[name].to_numpy() for name in columns], axis=1)
        else:
            rows = _lists(batch.column(0), columns[0], x.shape[1], start, path)
        if not len(x):
            needed = 4 * count * rows.shape[1]
            check_fits(needed, f"{shown(path)}: its embeddings need", "Save fewer in a file.")
            x = np.empty((count, rows.shape[1]), np.float32)
        with np.errstate(over="ignore"):  # found below, as infinite
            x[start : start + len(rows)] = rows
        start += len(rows)
    if 0 in x.shape:
        raise ValueError(f"{shown(path)} holds no embeddings. It has {count} rows.")
    if start != count:
        raise ValueError(f"{shown(path)} is damaged: it claims {count} rows and has {start}.")
    check_finite(x, path)
    return x


def _numbers(file: Any, columns: list[str]) -> int:
    """How many numbers columns hold in all, as the file claims."""
    total, metadata = 0, file.metadata
    for group in range(metadata.num_row_groups):
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


def _labels(
    column: Any, names: list[str] | None, path: object
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels int32 [n] from 0, and the names of the classes."""
    if column.null_count:
        raise ValueError(
            f"{shown(path)}: {column.null_count:,} of {len(column):,} labels are null."
        )
    values, codes = column_values(column, "labels", path)
    numbers, names_of = number(sorted(values), names, path)
    return np.array([numbers[value] for value in values], np.int32)[codes], names_of


def _parts(file: Any, schema: pyarrow.Schema, path: object) -> list[str] | None:
    found = [name for name in schema.names if name.lower() in PARTS]
    if not found:
        return None
    values, codes = column_values(file.read(found[:1])[found[0]], found[0], path)
    parts = [part_named(value) for value in values]
    unknown = [brief(value) for value, part in zip(values, parts, strict=True) if part is None]
    if unknown:
        raise ValueError(
            f"{shown(path)}: the column {brief(repr(found[0]))} must hold train, val or test. "
            f"Received: {listed(unknown)}."
        )
    return [str(parts[code]) for code in codes.tolist()]
