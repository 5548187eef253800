"""Embeddings saved as a Parquet file."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from kinfold.datasets._arrays import EXAMPLES, LABELS, as_labels, check_finite
from kinfold.datasets._split import Split, check_classes

if TYPE_CHECKING:
    import pyarrow

_ROWS = 8192  # read at once


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

    Args:
        path: the file.

    Returns:
        A `Split` of vectors.

    Raises:
        ImportError: pyarrow is missing.
        ValueError: the file is missing or damaged, has no such columns or more than one, nulls,
            lists of different lengths, values that are not finite in float32, or one class only.

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
    if not os.path.isfile(path):
        raise ValueError(f"{path} is not a file.")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(
            f"{path}: reading Parquet needs pyarrow: pip install kinfold[parquet]"
        ) from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            label = _label_column(schema, path)
            columns = _embedding_columns(schema, label, path)
            x = _examples(file, columns, path)
            y, names = _labels(file.read([label])[label], _class_names(schema, label), path)
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(
            f"{path} is not a Parquet file, is cut short or is damaged: {error}"
        ) from None
    check_classes(names, path)
    return Split(x, y, names)


def _label_column(schema: pyarrow.Schema, path: object) -> str:
    found = [name for name in schema.names if name.lower() in LABELS]
    if len(found) != 1:
        raise ValueError(
            f"{path} must have one column of labels, named {_either(LABELS)}. {_listed(schema)}"
        )
    return found[0]


def _embedding_columns(schema: pyarrow.Schema, label: str, path: object) -> list[str]:
    """The one column of lists, or several of numbers."""
    from pyarrow import types

    def is_list(kind: Any) -> bool:
        lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        number = lists and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type))
        return bool(number)

    lists = [field.name for field in schema if is_list(field.type)]
    if len(lists) > 1:
        lists = [name for name in lists if name.lower() in EXAMPLES]
    if len(lists) == 1:
        return lists
    families: dict[str, dict[int, str]] = {}
    for field in schema:
        numbered = re.fullmatch(r"(.*?)(\d+)", field.name)
        if numbered and types.is_floating(field.type) and field.name != label:
            families.setdefault(numbered[1], {})[int(numbered[2])] = field.name
    wide = [family for family in families.values() if len(family) > 1]
    if lists or len(wide) != 1:
        raise ValueError(
            f"{path} must have one column of embeddings, lists of numbers, named "
            f"{_either(EXAMPLES)} if there are more such columns; or floating columns named alike "
            f"up to a number, such as dim_0, dim_1. {_listed(schema)}"
        )
    return [name for _, name in sorted(wide[0].items())]


def _examples(file: Any, columns: list[str], path: object) -> np.ndarray:
    """float32 [n, d], filled block by block."""
    x, start = np.empty((0, 0), np.float32), 0
    count = file.metadata.num_rows
    for batch in file.iter_batches(_ROWS, columns=columns):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if column.null_count:
                row = start + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
                raise ValueError(f"{path}: the column {name!r} is null in row {row}, from 0 on.")
        if len(columns) > 1:
            rows = np.stack([batch[name].to_numpy() for name in columns], axis=1)
        else:
            rows = _lists(batch.column(0), columns[0], x.shape[1], start, path)
        if not len(x):
            x = np.empty((count, rows.shape[1]), np.float32)
        with np.errstate(over="ignore"):  # found below, as infinite
            x[start : start + len(rows)] = rows
        start += len(rows)
    if 0 in x.shape:
        raise ValueError(f"{path} holds no embeddings. It has {count} rows.")
    check_finite(x, path)
    return x


def _lists(column: Any, name: str, size: int, start: int, path: object) -> np.ndarray:
    """Lists of numbers as [rows, d], d being that of the rows before them."""
    values = column.flatten()
    lengths = column.value_lengths().to_numpy()
    size = size or int(lengths[0])
    other = np.flatnonzero(lengths != size)
    if len(other):
        raise ValueError(
            f"{path}: the lists in {name!r} must be of one length, and that of row "
            f"{start + other[0]}, from 0 on, is {lengths[other[0]]} long, not {size}."
        )
    if values.null_count:
        row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False))) // size
        raise ValueError(f"{path}: the list of {name!r} in row {start + row} holds a null.")
    return values.to_numpy(zero_copy_only=False).reshape(len(column), size)


def _labels(
    column: Any, names: np.ndarray | None, path: object
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels int32 [n] from 0, and the names of the classes."""
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        raise ValueError(f"{path}: {column.null_count:,} of {len(column):,} labels are null.")
    text = (types.is_string, types.is_large_string, types.is_string_view)
    if not types.is_integer(column.type) and not any(is_text(column.type) for is_text in text):
        raise ValueError(
            f"{path}: labels must be integers or strings. Received the type {column.type}."
        )
    if types.is_string_view(column.type):  # which Arrow does not encode yet
        column = column.cast("large_string")
    codes = column.dictionary_encode().combine_chunks()
    values = np.array(codes.dictionary.to_pylist())
    y, names_of = as_labels(values, names, len(values), path)
    return y[codes.indices.to_numpy()], names_of


def _class_names(schema: pyarrow.Schema, label: str) -> np.ndarray | None:
    """The names that Hugging Face datasets keep in the file beside integer labels."""
    try:
        kept = json.loads((schema.metadata or {})[b"huggingface"])
        return np.array(kept["info"]["features"][label]["names"], str)
    except (KeyError, TypeError, ValueError):
        return None


def _either(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}"


def _listed(schema: pyarrow.Schema, most: int = 12) -> str:
    said = ", ".join(f"{field.name} ({field.type})" for field in list(schema)[:most])
    more = len(schema) - most
    return f"Found: {said or 'none'}" + (f" and {more} more." if more > 0 else ".")
