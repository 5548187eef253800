"""Text tables: `.csv` and `.tsv`."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

from kinfold.datasets._memory import check_fits
from kinfold.datasets._names import shown

_DELIMITERS = (",", ";", "\t")
_TEXT = 8  # bytes of memory for a byte of the file, as strings in lists


def csv_columns(table: Path) -> dict[str, list[str]]:
    """The columns of a table by name; the first line holds the names.

    Fields are divided by tabs in a `.tsv` file, and in a `.csv` file by what stands most often in
    its first line: commas, semicolons or tabs. The text is UTF-8, or UTF-16 with its mark. Bytes
    that are neither stay what they are, so that they name the file that has these bytes.
    """
    check_fits(
        _TEXT * table.stat().st_size, f"{shown(table)}: its text needs", "Pass a smaller table."
    )
    content = table.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", "replace")
    else:
        text = content.decode("utf-8-sig", "surrogateescape")
    del content
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count) if table.suffix.lower() == ".csv" else "\t"
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"{shown(table)}, line {reader.line_num}: {error}.") from None
    if not rows:
        raise ValueError(f"{shown(table)} is empty. Its first line must name the columns.")
    names = [name.strip() for name in rows[0]]
    if len(set(names)) < len(names):
        raise ValueError(f"{shown(table)}: two columns have the same name. Rename one of them.")
    for n, row in enumerate(rows[1:]):
        if len(row) != len(names):
            raise ValueError(
                f"{shown(table)}: row {n}, from 0 on, has {len(row)} fields, and the first line "
                f"names {len(names)} columns."
            )
    return {name: [row[k] for row in rows[1:]] for k, name in enumerate(names)}
