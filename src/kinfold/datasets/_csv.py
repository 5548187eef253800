"""Text tables: `.csv` and `.tsv`."""

from __future__ import annotations

import codecs
import csv
import sys
from collections.abc import Collection
from pathlib import Path

from kinfold.core.installed_memory import check_fits
from kinfold.datasets._names import shown

_DELIMITERS = (",", ";", "\t")
_TEXT = 8  # bytes of memory for a byte of the file, as strings in lists


def csv_columns(table: Path, wanted: Collection[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The names of a table's columns, and those columns whose name in lower case is wanted.

    The first line holds the names. Fields are divided by tabs in a `.tsv` file, and in a `.csv`
    file by what stands most often in its first line: commas, semicolons or tabs. The text is UTF-8,
    or UTF-16 with its mark. Bytes that are neither stay what they are, so that they name the file
    that has these bytes.
    """
    check_fits(
        _TEXT * table.stat().st_size, f"{shown(table)}: its text needs", "Pass a smaller table."
    )
    with open(table, "rb") as start:
        wide = start.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding, errors = ("utf-16", "replace") if wide else ("utf-8-sig", "surrogateescape")
    with open(table, encoding=encoding, errors=errors, newline="") as text:
        first = next((line for line in text if line.strip("\r\n")), "")
        delimiter = max(_DELIMITERS, key=first.count) if table.suffix.lower() == ".csv" else "\t"
        text.seek(0)
        reader = csv.reader(text, delimiter=delimiter, skipinitialspace=True)
        try:
            names = [name.strip() for name in next((row for row in reader if row), [])]
            if not names:
                raise ValueError(f"{shown(table)} is empty. Its first line must name the columns.")
            if len(set(names)) < len(names):
                raise ValueError(
                    f"{shown(table)}: two columns have the same name. Rename one of them."
                )
            kept = {k: name for k, name in enumerate(names) if name.lower() in wanted}
            columns: dict[str, list[str]] = {name: [] for name in kept.values()}
            n = 0
            for row in reader:
                if not row:
                    continue
                if len(row) != len(names):
                    raise ValueError(
                        f"{shown(table)}: row {n}, from 0 on, has {len(row)} fields, and the first "
                        f"line names {len(names)} columns."
                    )
                for k, name in kept.items():
                    columns[name].append(sys.intern(row[k]))  # labels come again and again
                n += 1
        except csv.Error as error:
            raise ValueError(f"{shown(table)}, line {reader.line_num}: {error}.") from None
    return names, columns
