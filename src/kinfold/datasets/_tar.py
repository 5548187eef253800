"""Where the files of a tar lie, by its headers.

Python's `tarfile` reads all of each header, which takes long for a million images. Here only names
and places are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from kinfold.datasets._names import shown

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_PLAIN = b"0\x007"  # kinds of plain files
_NO_DATA = b"123456"  # links, devices, folders and pipes, whatever size they claim
_RECORD = re.compile(rb"(\d{1,7}) ([^=\n]+)=")
_OCTAL = re.compile(rb"[0-7]*")
_LONGEST = 1 << 20  # bytes of a name, or of a header of records


class Member(NamedTuple):
    """A plain file in a tar."""

    name: str
    offset: int
    size: int


def members(file: Path) -> Iterator[Member]:
    """The plain files of an uncompressed tar, in their order.

    Raises:
        ValueError: it is not a tar, is cut short or is damaged.
    """
    try:
        yield from _members(file)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{shown(file)} is not a tar file, is cut short or is damaged: {shown(error)}."
        ) from error


def _members(file: Path) -> Iterator[Member]:
    with file.open("rb") as tar:
        held, at = tar.seek(0, 2), 0
        told: dict[bytes, bytes] = {}  # what extra headers say of the next file
        while True:
            if at > held or not held:
                raise ValueError("it ends in the middle of a file" if held else "it is empty")
            tar.seek(at)
            header = tar.read(_BLOCK)
            if not header or header == _ZEROS:
                return
            _check(header, at)
            kind, start = header[156], at + _BLOCK
            size = _size(header, at)
            if kind in b"xL":
                told.update(_told(kind, tar, size, at))
            elif kind == ord("S"):
                start = _after_map(tar, header, start)
            if kind in _NO_DATA or kind in b"S" + _PLAIN:
                size = int(told.get(b"size", size)) if kind not in _NO_DATA else 0
                if start + size > held:
                    raise ValueError("it ends in the middle of a file")
                if kind in _PLAIN and not any(key.startswith(b"GNU.sparse") for key in told):
                    name = told.get(b"path") or _name(header)
                    yield Member(name.decode("utf-8", "surrogateescape"), start, size)
                told = {}
            at = start + -(-size // _BLOCK) * _BLOCK


def _check(header: bytes, at: int) -> None:
    """Refuse what is no header: its bytes do not add up to the sum in it."""
    if len(header) == _BLOCK:
        expected = _octal(header[148:156])
        rest = header[:148] + b" " * 8 + header[156:]
        if expected == sum(rest):
            return
        if expected == sum(rest) - 256 * sum(byte > 127 for byte in rest):
            return  # signed, as some old programs add
    raise ValueError(f"no header is where one must be, at byte {at:,}")


def _size(header: bytes, at: int) -> int:
    field = header[124:136]
    if field[0] == 0x80:  # more than octal digits hold
        return int.from_bytes(field[1:], "big")
    size = _octal(field)
    if size is None:
        raise ValueError(f"the header at byte {at:,} claims no size")
    return size


def _octal(field: bytes) -> int | None:
    digits = field.split(b"\0")[0].strip()
    return int(digits or b"0", 8) if _OCTAL.fullmatch(digits) else None


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _told(kind: int, tar: BinaryIO, size: int, at: int) -> dict[bytes, bytes]:
    """What a long name, or a header of records `length key=value`, says of the next file."""
    content = tar.read(size) if size <= _LONGEST else b""
    if len(content) < size:
        raise ValueError(f"the header at byte {at:,} claims {size:,} bytes")
    if kind == ord("L"):
        return {b"path": content.split(b"\0")[0]}
    records = {}
    start = 0
    while start < size and content[start]:
        found = _RECORD.match(content, start)
        end = start + int(found[1]) if found else 0
        if not found or end > size or end <= found.end() or content[end - 1 : end] != b"\n":
            raise ValueError(f"the header at byte {at:,} holds no records")
        records[found[2]] = content[found.end() : end - 1]
        start = end
    if not re.fullmatch(rb"\d{1,18}", records.get(b"size", b"0")):
        raise ValueError(f"the header at byte {at:,} claims no size")
    return records


def _after_map(tar: BinaryIO, header: bytes, start: int) -> int:
    """Where the data of a file with holes starts: after the blocks that say where the holes are."""
    more = header[482]
    while more:
        block = tar.read(_BLOCK)
        if len(block) < _BLOCK:
            raise ValueError("it ends in the middle of a file")
        more, start = block[504], start + _BLOCK
    return start
