"""What is read at once of Parquet files of examples: the labels, the parts and the groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinfold.datasets._arrow import class_names, column_values, found_in, opened
from kinfold.datasets._labels import number
from kinfold.datasets._names import brief, either, listed, part_named, shown
from kinfold.datasets._row_groups import row_counts
from kinfold.datasets._words import LABELS, PARTS

if TYPE_CHECKING:
    import pyarrow


@dataclass
class Table:
    """Files of one kind, without their examples.

    Attributes:
        examples: the columns that hold the examples.
        counts: of each file the rows of each row group.
        y: int32 [n], labels from 0.
        names: of the classes.
        parts: the part of each row; None where there is no such column.
        groups: the value of each row in the column that was asked for.
    """

    examples: list[str]
    counts: list[list[int]]
    y: np.ndarray
    names: tuple[str, ...]
    parts: list[str] | None
    groups: list[str] | None


def read_table(
    files: Sequence[Path],
    path: object,
    examples: Callable[[pyarrow.Schema, str, object], list[str]],
    with_parts: bool = True,
    group: str | None = None,
) -> Table:
    """Read all of files but the examples.

    Args:
        files: with the same columns, in the order of the rows.
        path: the data as the user named it, for messages.
        examples: finds the columns of examples in a schema, or refuses it.
        with_parts: whether to read the parts.
        group: a column to read; None for none.
    """
    tables: list[dict[str, list[Any]]] = []
    counts = []
    for file in files:
        with opened(file) as parquet:
            schema = parquet.schema_arrow
            if not tables:
                label = _label_column(schema, path)
                part = _part_column(schema) if with_parts else None
                together = None if group is None else _group_column(schema, group, path)
                found = examples(schema, label, path)
                names = class_names(schema, label)
                read = [name for name in (label, part, together) if name is not None]
                same = _types(schema, [*read, *found])
            elif (_types(schema, [*read, *found]), class_names(schema, label)) != (same, names):
                raise ValueError(
                    f"{shown(path)}: all its files must have the same columns and names of "
                    f"classes. {brief(files[0].name)} has others than {brief(file.name)}."
                )
            # Several columns of one name cannot be told apart.
            tables.append({name: parquet.read([name])[name].chunks for name in set(read)})
            counts.append(row_counts(parquet))

    def column(name: str) -> Any:
        import pyarrow

        chunks = [chunk for table in tables for chunk in table[name]]
        return pyarrow.chunked_array(chunks, same[name])

    y, class_of = _labels(column(label), names, path)
    if len(y) != sum(map(sum, counts)):
        raise ValueError(f"{shown(path)} is damaged: it claims another number of rows than it has.")
    return Table(
        found,
        counts,
        y,
        class_of,
        None if part is None else _parts(column(part), part, path),
        None if together is None else _text(column(together), together, path),
    )


def _types(schema: pyarrow.Schema, names: Sequence[str]) -> dict[str, Any]:
    fields = {field.name: field.type for field in schema}
    return {name: fields.get(name) for name in names}


def _label_column(schema: pyarrow.Schema, path: object) -> str:
    found = [name for name in schema.names if name.lower() in LABELS]
    if len(found) != 1:
        raise ValueError(
            f"{shown(path)} must have one column of labels, named {either(LABELS)}. "
            f"{found_in(schema)}"
        )
    return found[0]


def _part_column(schema: pyarrow.Schema) -> str | None:
    return next((name for name in schema.names if name.lower() in PARTS), None)


def _group_column(schema: pyarrow.Schema, group: str, path: object) -> str:
    found = [name for name in schema.names if name.lower() == group.lower()]
    if len(found) != 1:
        raise ValueError(
            f"{shown(path)} must have one column named {brief(group)}, to keep the rows of its "
            f"values together. {found_in(schema)}"
        )
    return found[0]


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


def _parts(column: Any, name: str, path: object) -> list[str]:
    values, codes = column_values(column, name, path)
    parts = [part_named(value) for value in values]
    unknown = [brief(value) for value, part in zip(values, parts, strict=True) if part is None]
    if unknown:
        raise ValueError(
            f"{shown(path)}: the column {brief(repr(name))} must hold train, val or test. "
            f"Received: {listed(unknown)}."
        )
    return [str(parts[code]) for code in codes.tolist()]


def _text(column: Any, name: str, path: object) -> list[str]:
    values, codes = column_values(column, name, path)
    words = [str(value) for value in values]
    return [words[code] for code in codes.tolist()]
