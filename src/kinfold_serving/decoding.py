"""Images of clients, decoded in other processes, where a decompression bomb does no harm."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

import _kinfold_upload
from _kinfold_upload import ANSWERED, ASKED, DAMAGED, FINE, NO_IMAGE, TOO_LARGE

SECONDS = 15.0  # in which an image must be decoded
LARGEST_OWN = 256 << 20  # bytes of a file of the index that is shown

Read = Callable[[], Awaitable[bytes]]

_STATUS = {NO_IMAGE: 415, DAMAGED: 400, TOO_LARGE: 413}


class BadImageError(ValueError):
    """A file that is not accepted as an image; the text follows its name.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Decoding:
    """Processes that decode images, started when they are first needed.

    Args:
        count: how many; None for one per core of this machine, at most four.
        seconds: in which an image must be decoded.
    """

    def __init__(self, count: int | None = None, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._all = [_Decoder() for _ in range(count or min(4, os.cpu_count() or 1))]
        self._idle: asyncio.LifoQueue[_Decoder] | None = None

    async def pixels(self, read: Read, shape: tuple[int, int, int]) -> np.ndarray:
        """An image as the model takes it, uint8 [height, width, channels].

        Args:
            read: gives the file. It is not called before a process is free, so few files are held
                in memory at once.
            shape: height, width and channels.

        Raises:
            BadImageError: it is not decoded.
        """
        return np.frombuffer(await self._ask(read, *shape), np.uint8).reshape(shape)

    async def picture(self, path: Path, side: int) -> bytes:
        """A PNG file of the image at a path, no larger than `side` x `side`.

        Raises:
            BadImageError: it is not decoded.
        """
        return await self._ask(lambda: asyncio.to_thread(_content, path), side, side, 0)

    async def stop(self) -> None:
        """End the processes."""
        for one in self._all:
            await one.stop()

    async def _ask(self, read: Read, height: int, width: int, channels: int) -> bytes:
        if self._idle is None:
            self._idle = asyncio.LifoQueue()
            for one in self._all:
                self._idle.put_nowait(one)
        decoder = await self._idle.get()
        try:
            file = await read()
            async with asyncio.timeout(self.seconds):
                code, answer = await decoder.ask(
                    ASKED.pack(len(file), height, width, channels), file
                )
        except TimeoutError:
            raise BadImageError(
                400, f"takes longer than {self.seconds:g} seconds to decode."
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError):  # its process has ended
            raise BadImageError(400, "cannot be decoded: it breaks its reader.") from None
        finally:
            self._idle.put_nowait(decoder)
        if code != FINE:
            raise BadImageError(_STATUS[code], answer.decode())
        return answer


class _Decoder:
    """A process that decodes one image after another, and another one if it ends."""

    def __init__(self) -> None:
        self._process: Process | None = None

    async def ask(self, head: bytes, file: bytes) -> tuple[int, bytes]:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-X", "utf8", _kinfold_upload.__file__),
                stdin=PIPE,
                stdout=PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        given, answer = self._process.stdin, self._process.stdout
        assert given is not None
        assert answer is not None
        try:
            given.write(head)
            given.write(file)
            await given.drain()
            code, length = ANSWERED.unpack(await answer.readexactly(ANSWERED.size))
            return code, await answer.readexactly(length)
        except BaseException:  # something may be left in its pipes
            self.end()
            raise

    async def stop(self) -> None:
        process = self._process
        self.end()
        if process is not None:
            await process.wait()

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():  # a device or a pipe would never end
            raise BadImageError(404, "is not there any more.")
        if path.stat().st_size > LARGEST_OWN:
            raise BadImageError(413, "is too large to be shown.")
        return path.read_bytes()
    except OSError:
        raise BadImageError(404, "cannot be read.") from None
