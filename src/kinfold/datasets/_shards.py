"""Data in one file, or in a folder of files of one kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from kinfold.datasets._folder import visible
from kinfold.datasets._names import part_named, shown


def shards(path: Path, suffix: str) -> list[Path]:
    """The file itself, or the files of this suffix in a folder, in order of name."""
    if not path.is_dir():
        return [path]
    found = _files(path, suffix)
    if not found:
        raise ValueError(f"{shown(path)} holds no {suffix} file.")
    return found


def holds_shards(path: Path, suffix: str) -> bool:
    """Whether a path is a folder that holds files of this suffix."""
    return path.is_dir() and bool(_files(path, suffix))


def parts_by_name(path: Path, files: Sequence[Path]) -> list[str] | None:
    """The part that the name of each file in a folder starts with, if all do.

    Such names are `train-00000-of-00002.parquet` and `val_0001.tar`. A file that is named alone is
    not a part: None.
    """
    if not path.is_dir():
        return None
    found = [part_named(re.split(r"[^A-Za-z]", file.name, maxsplit=1)[0]) for file in files]
    parts = [part for part in found if part is not None]
    return parts if len(parts) == len(found) else None


def _files(folder: Path, suffix: str) -> list[Path]:
    return [e for e in visible(folder) if e.suffix.lower() == suffix and e.is_file()]
