"""What tells whether a file has changed since: its size, its time, and a hash of parts of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kinfold.datasets._names import shown

HASH = 16  # bytes
_WHOLE = 1 << 16  # bytes of a file up to which all of it is hashed
_BLOCKS, _BLOCK = 16, 1 << 12  # of a larger one: blocks spread evenly, with the first and the last
_AT_ONCE = 64  # files that a thread looks at

# What is said of a file that cannot be read; None of one that can.
Check = Callable[[BinaryIO, int], str | None]


@dataclass
class Fingerprints:
    """What is known of files, a row for each.

    Attributes:
        sizes: int64 [n], bytes.
        times: int64 [n], when each was changed last, in nanoseconds.
        hashes: uint8 [n, 16]; zeros where a file could not be opened.
    """

    sizes: np.ndarray
    times: np.ndarray
    hashes: np.ndarray

    @classmethod
    def none(cls, count: int) -> Fingerprints:
        return cls(
            np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros((count, HASH), np.uint8)
        )

    def take(self, rows: np.ndarray) -> Fingerprints:
        return Fingerprints(self.sizes[rows], self.times[rows], self.hashes[rows])


def look(
    root: Path,
    files: Sequence[str],
    check: Check | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Fingerprints, dict[int, str]]:
    """Look at files: hash them, and say why those that cannot be read cannot.

    A hash is that of the whole file up to 64 KiB, and of 16 blocks of 4 KiB of a larger one.

    Args:
        root: the folder that `files` are relative to.
        files: paths.
        check: called with an open file and its size; returns why it cannot be used.
        progress: called with (files done, files in all).
    """
    found = Fingerprints.none(len(files))
    bad: dict[int, str] = {}

    def some(start: int) -> int:
        end = min(start + _AT_ONCE, len(files))
        for row in range(start, end):
            try:
                why = _look_at(os.path.join(root, files[row]), row, found, check)
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if why is not None:
                bad[row] = shown(why)
        return end

    pool = ThreadPoolExecutor()
    try:
        for done in pool.map(some, range(0, len(files), _AT_ONCE)):
            if progress is not None:
                progress(done, len(files))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for every file
    return found, dict(sorted(bad.items()))


def changed(root: Path, files: Sequence[str], known: Fingerprints) -> Iterator[tuple[int, str]]:
    """The rows of the files that are not as they were, and whether they are "gone" or "changed".

    Files of the same size and time are taken to be the same; of others the hash is compared.
    """
    for row, file in enumerate(files):
        path = os.path.join(root, file)
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            yield row, "gone"
            continue
        if (status.st_size, status.st_mtime_ns) == (known.sizes[row], known.times[row]):
            continue
        now, _ = look(root, [file])
        if not np.array_equal(now.hashes[0], known.hashes[row]):
            yield row, "changed"


def _look_at(path: str, row: int, found: Fingerprints, check: Check | None) -> str | None:
    if not os.path.isfile(path):  # a device or a pipe would never end
        return "a folder or device" if os.path.exists(path) else "no such file"
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        found.sizes[row], found.times[row] = status.st_size, status.st_mtime_ns
        digest = _hash(file, status.st_size)
        found.hashes[row] = np.frombuffer(digest, np.uint8)
        if check is None:
            return None
        file.seek(0)
        return check(file, status.st_size)


def _hash(file: BinaryIO, size: int) -> bytes:
    digest = hashlib.blake2b(str(size).encode(), digest_size=HASH)
    if size <= _WHOLE:
        digest.update(file.read())
    else:
        for k in range(_BLOCKS):
            file.seek(k * (size - _BLOCK) // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
    return digest.digest()
