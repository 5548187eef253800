"""Processes that decode images beside this one, whose threads share one interpreter's lock."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import _kinfold_decode
from _kinfold_decode import HEAD
from kinfold.datasets._filling import fill
from kinfold.datasets._names import shown

_AT_ONCE = 8  # images of one request

# They are started as programs, not by `multiprocessing`: that runs the user's script once more in
# each, or copies a process with the threads of a backend in it.
_COMMAND = ["-X", "utf8", _kinfold_decode.__file__]


class Decoders:
    """Decodes images in `count` processes; they end with the process that made them."""

    def __init__(self, count: int) -> None:
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(count, "kinfold-decode")  # each waits for a process
        self._started: list[subprocess.Popen[bytes]] = []
        weakref.finalize(self, _end, self._started)
        for _ in range(count):
            self._start()

    def __call__(
        self, images: Sequence[Path | bytes], size: tuple[int, int], channels: int
    ) -> list[np.ndarray | str]:
        """Each image as `_kinfold_decode.decode` gives it.

        Args:
            images: paths, or what files contain.
            size: (height, width) in pixels.
            channels: 3 for RGB, 1 for grey.

        Raises:
            RuntimeError: a process has ended, as where memory ran out.
        """
        pixels = np.empty((len(images), *size, channels), np.uint8)

        def some(start: int) -> list[np.ndarray | str]:
            asked = images[start : start + _AT_ONCE]
            process = self._idle.get()
            try:
                found = _ask(process, asked, pixels[start : start + _AT_ONCE], size, channels)
            except (EOFError, OSError) as error:
                code = process.wait()
                _end([process])
                self._start()
                raise RuntimeError(
                    f"A process that decodes images ended with {code}; memory may have run out, or "
                    f"one of these files breaks its reader: {', '.join(map(_name, asked))}."
                ) from error
            self._idle.put(process)
            return found

        starts = range(0, len(images), _AT_ONCE)
        return [picture for found in self._threads.map(some, starts) for picture in found]

    def _start(self) -> None:
        process = subprocess.Popen(
            [sys.executable, *_COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._started.append(process)
        self._idle.put(process)


def _ask(
    process: subprocess.Popen[bytes],
    images: Sequence[Path | bytes],
    pixels: np.ndarray,
    size: tuple[int, int],
    channels: int,
) -> list[np.ndarray | str]:
    given, answer = process.stdin, process.stdout
    assert given is not None
    assert answer is not None
    given.write(pickle.dumps((size, channels, list(images))))
    given.flush()
    found: list[np.ndarray | str] = []
    for row in pixels:
        head = bytearray(HEAD.size)
        fill(answer, memoryview(head))
        (length,) = HEAD.unpack(head)
        if length:
            said = bytearray(length)
            fill(answer, memoryview(said))
            found.append(said.decode("utf-8"))
        else:
            fill(answer, memoryview(row).cast("B"))
            found.append(row)
    return found


def _name(image: Path | bytes) -> str:
    return "an image in a larger file" if isinstance(image, bytes) else shown(image)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what a killed process did not read
                pipe.close()
