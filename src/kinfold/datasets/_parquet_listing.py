"""Parquet files that list images."""

from __future__ import annotations

import os
from collections.abc import Collection

from kinfold.core.installed_memory import check_fits
from kinfold.datasets._arrow import class_names, column_values, is_text, opened
from kinfold.datasets._names import shown
from kinfold.datasets._parquet import embedding_columns
from kinfold.datasets._words import PATHS

_STRING = 64  # bytes of memory for a string in a list, at least


def is_listing(path: str | os.PathLike[str]) -> bool:
    """Whether a file has paths of images and no embeddings."""
    with opened(path) as file:
        schema = file.schema_arrow
        paths = [f.name for f in schema if f.name.lower() in PATHS and is_text(f.type)]
        return bool(paths) and not embedding_columns(schema, "")


def listing_columns(
    path: str | os.PathLike[str], wanted: Collection[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """The names of a table's columns, and as strings those whose name in lower case is wanted."""
    with opened(path) as file:
        schema = file.schema_arrow
        names = [name for name in schema.names if name.lower() in wanted]
        check_fits(
            _STRING * len(names) * file.metadata.num_rows,
            f"{shown(path)}: its {file.metadata.num_rows:,} rows need",
            "Pass a smaller table.",
        )
        columns = {}
        for name in names:
            column = file.read([name])[name]
            values, kept = column_values(column, name, path)
            known = class_names(schema, name)
            words = [_word(value, known) for value in values]
            columns[name] = [words[code] for code in kept.tolist()]
        return list(schema.names), columns


def _word(value: int | str, names: list[str] | None) -> str:
    if names is not None and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    return str(value)
