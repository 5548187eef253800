"""Image files as pixels: one, several at a time, and others in the place of unreadable ones."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np

from _kinfold_decode import decode, reason
from kinfold.datasets._decoders import Decoders
from kinfold.datasets._names import brief, shown

_BLOCK = 256  # examples read at once, so that few are held twice

Opener = Callable[[], BinaryIO | Path]

_MANY = 16  # images that other processes decode; fewer are decoded here, in threads
_MOST_PROCESSES = 16  # each holds Python, NumPy and Pillow

# By process, as neither threads nor the ends of pipes can be used after a fork.
_pools: dict[int, ThreadPoolExecutor] = {}
_processes: dict[int, Decoders] = {}
_making = threading.Lock()


def check_decoding(size: tuple[int, int], channels: int) -> tuple[int, int]:
    """The size as whole numbers; refuse what no image can be read as."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ImportError("Reading images needs pillow: pip install kinfold[train]") from error
    if (
        not isinstance(size, Sequence)
        or len(size) != 2
        or not all(isinstance(side, int | np.integer) and side > 0 for side in size)
    ):
        raise ValueError(
            f"size must be (height, width), two whole numbers of pixels. Received {size!r}."
        )
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (RGB). Received {channels!r}.")
    return int(size[0]), int(size[1])


def decode_all(
    openers: Sequence[Opener], size: tuple[int, int], channels: int
) -> list[np.ndarray | str]:
    """Each image as `decode` gives it, decoded in parallel.

    Args:
        openers: each gives the path of an image or a file that is open for reading. It is called
            in one of several threads, and a file is closed after it was read.
        size: (height, width) in pixels.
        channels: 3 for RGB, 1 for grey.
    """
    if len(openers) == 1:
        return [_decoded(openers[0], size, channels)]
    decoders = _decoders() if len(openers) >= _MANY else None
    if decoders is None:
        return list(_pool().map(lambda opener: _decoded(opener, size, channels), openers))
    given = list(_pool().map(_given, openers))
    images = [image for image in given if not isinstance(image, str)]
    found = iter(decoders(images, size, channels))
    return [image if isinstance(image, str) else next(found) for image in given]


def _decoded(opener: Opener, size: tuple[int, int], channels: int) -> np.ndarray | str:
    given = _given(opener)
    return given if isinstance(given, str) else decode(given, size, channels)


def _given(opener: Opener) -> Path | bytes | str:
    """The path of an image, or what its file contains, or why it cannot be read."""
    try:
        file = opener()
        if isinstance(file, Path):
            return file.absolute()  # the processes that decode may have begun in another folder
        with file:
            return file.read()
    except Exception as error:  # whatever the file is in is damaged or gone
        return reason(error)


def fill(
    read_some: Callable[[np.ndarray], list[np.ndarray | str]],
    rows: np.ndarray,
    y: np.ndarray,
    unreadable: dict[int, str],
    out: np.ndarray,
    names: Sequence[str],
    source: object,
) -> None:
    """Read examples into `out`, another of the same class in the place of an unreadable one.

    That other is the next readable one in the order of rows, and after the last row the first: it
    does not depend on what was read before.

    Args:
        read_some: gives for each of these rows, all different, the example or why it cannot be
            read.
        rows: int64 [k], the examples to read.
        y: int [n], for each example that there is a number of whose kind it is: its class, plus
            the number of classes times that of its part where the data is divided.
        unreadable: by row, why an example cannot be read; what is found now is added. What is
            in it already is not tried again.
        out: `[k, ...]`.
        names: `names[c]` is the name of class c.
        source: the data as the user named it, for messages.

    Raises:
        ValueError: no example of a class can be read.
    """
    members: dict[int, np.ndarray] = {}

    def stand_in(row: int) -> int:
        if row not in unreadable:
            return row
        label = int(y[row])
        if label not in members:
            members[label] = np.flatnonzero(y == label)
        of_class = members[label]
        first = int(np.searchsorted(of_class, row))
        for k in range(1, len(of_class)):
            other = int(of_class[(first + k) % len(of_class)])
            if other not in unreadable:
                return other
        raise ValueError(
            f"{shown(source)}: no image of the class {brief(repr(names[label % len(names)]))} can "
            f"be read; row {row}, from 0 on: {shown(unreadable[row])}."
        )

    waiting = np.arange(len(rows))
    while len(waiting):
        wanted = np.array([stand_in(row) for row in rows[waiting].tolist()])
        different, place = np.unique(wanted, return_inverse=True)
        failed = np.zeros(len(different), bool)
        for start in range(0, len(different), _BLOCK):
            some = different[start : start + _BLOCK]
            for k, (row, picture) in enumerate(zip(some.tolist(), read_some(some), strict=True)):
                if isinstance(picture, str):
                    unreadable[row] = picture
                    failed[start + k] = True
                else:
                    out[waiting[place == start + k]] = picture
        waiting = waiting[failed[place]]


def _pool() -> ThreadPoolExecutor:
    """The threads of this process."""
    process = os.getpid()
    if process not in _pools:  # of two made at once, setdefault keeps one; the other has no thread
        _pools.setdefault(process, ThreadPoolExecutor(_cores(), "kinfold-read"))
    return _pools[process]


def _decoders() -> Decoders | None:
    """The processes that decode for this one; None where they would not help or cannot start."""
    count = min(_cores(), _MOST_PROCESSES)
    if count == 1 or not sys.executable or getattr(sys, "frozen", False):
        return None
    process = os.getpid()
    with _making:
        if process not in _processes:
            _processes[process] = Decoders(count)
        return _processes[process]


def _cores() -> int:
    """How many this process may use; a scheduler of a cluster gives it some of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
