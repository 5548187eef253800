"""Bytes that are read to the last one asked for."""

from __future__ import annotations

from io import FileIO
from typing import IO


def fill(file: FileIO | IO[bytes], room: memoryview) -> None:
    """Read as many bytes as there is room for.

    Raises:
        EOFError: there are fewer.
    """
    done = 0
    while done < len(room):
        more = file.readinto(room[done:])  # type: ignore[union-attr]
        if not more:
            raise EOFError("it ends too early")
        done += more
