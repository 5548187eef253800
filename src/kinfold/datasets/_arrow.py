"""What both kinds of Parquet files need: opening one, and columns of labels."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from kinfold.datasets._labels import from_bytes
from kinfold.datasets._names import brief, listed, shown

if TYPE_CHECKING:
    import pyarrow


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    if not os.path.isfile(path):
        raise ValueError(f"{shown(path)} is not a file.")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(
            f"{shown(path)}: reading Parquet needs pyarrow: pip install kinfold[parquet]"
        ) from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(
            f"{shown(path)} is not a Parquet file, is cut short or is damaged: {shown(error)}"
        ) from None


def column_values(column: Any, what: str, path: object) -> tuple[list[Any], np.ndarray]:
    """The different values of a column, integers or strings, and the number of that in each row."""
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        raise ValueError(f"{shown(path)}: the column {brief(repr(what))} holds nulls.")
    text = is_text(column.type)
    if not types.is_integer(column.type) and not text:
        raise ValueError(
            f"{shown(path)}: {what} must be integers or strings. Received the type {column.type}."
        )
    if text:  # as bytes, as they need not be UTF-8, and Arrow does not encode views yet
        column = column.cast("large_binary")
    codes = column.dictionary_encode().combine_chunks()
    values = codes.dictionary.to_pylist()
    return from_bytes(values) if text else values, codes.indices.to_numpy()


def is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def class_names(schema: pyarrow.Schema, label: str) -> list[str] | None:
    """The names that Hugging Face datasets keep in the file beside integer labels."""
    try:
        kept = json.loads((schema.metadata or {})[b"huggingface"])
        return [str(name) for name in kept["info"]["features"][label]["names"]]
    except (KeyError, TypeError, ValueError):
        return None


def found_in(schema: pyarrow.Schema) -> str:
    return f"Found: {listed([f'{brief(field.name)} ({field.type})' for field in schema])}."
