"""Files that are whole or not there."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

PARTIAL = ".partial-"  # begins the name of a file that is being written


class WriteError(OSError):
    """A file of the run could not be written; those written before are as they were."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to; then rename it to `path`, or remove it on an error.

    After a crash at any moment `path` is the old file or the new one. Each process writes beside
    under a name of its own.

    Raises:
        WriteError: the disk is full, or the folder cannot be written to.
    """
    beside = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield beside
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise WriteError(f"Could not write {path}: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str, errors: str = "backslashreplace") -> None:
    """Write a file of UTF-8; `errors` says what becomes of what is none."""
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8", errors=errors, newline="\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged and cannot be read: {error}.") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, with null for numbers that are not finite."""
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
