"""What the routes share: the run, what is searched in, what decodes images, what is counted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from _kinfold_found import Neighbours
from kinfold_serving.decoding import BadImageError, Decoding, Read
from kinfold_serving.mapping import Maps, Places
from kinfold_serving.metrics import Metrics
from kinfold_serving.searcher import Searcher
from kinfold_serving.served import Served
from kinfold_serving.snapshot import Snapshot

_PATIENCE = 2.0  # seconds in which a map may be computed while its request waits


class Service:
    """A run or a bundle that is served.

    Args:
        served: what has an index.
        decoding: of images; None for processes as this machine allows.

    Raises:
        FileNotFoundError: there is no index.
        ValueError: the index is empty, damaged, or of another model.
    """

    def __init__(self, served: Served, decoding: Decoding | None = None) -> None:
        self.served = served
        self.searcher = Searcher(served, Snapshot.take(served, 0))
        self.decoding = decoding or Decoding()
        self.maps, self.metrics = Maps(), Metrics()
        self._reloading: asyncio.Lock | None = None

    @property
    def snapshot(self) -> Snapshot:
        """What is searched in now."""
        return self.searcher.snapshot

    async def images(self, reads: list[tuple[str, Read]], k: int) -> tuple[Snapshot, Neighbours]:
        """Search for images.

        Args:
            reads: the name of each, and what gives the file.
            k: how many neighbours of each.

        Raises:
            BadImageError: one of them is not decoded; it begins with its name.
            BusyError: too many searches wait.
        """
        height, width, channels = self.served.shape
        shape = height, width, channels
        pixels = await asyncio.gather(*(self._pixels(*one, shape) for one in reads))
        return await self.searcher.search(np.stack(pixels), k)

    async def picture(self, file: str, side: int) -> bytes:
        """A PNG file of a file of the index.

        Raises:
            BadImageError: it is gone, or not decoded.
        """
        try:
            return await self.decoding.picture(Path(file), side)
        except BadImageError as error:
            raise BadImageError(error.status, f"The picture {error}") from None

    async def places(self, snapshot: Snapshot, method: str) -> Places | None:
        """A map of what is searched in; None while it is computed."""
        task = self.maps.begun(snapshot, method)
        done, _ = await asyncio.wait([task], timeout=_PATIENCE)
        return task.result() if done else None

    async def reload(self) -> Snapshot:
        """Read the index and the calibration again; searches go on in the one before meanwhile.

        Raises:
            FileNotFoundError, ValueError: there is none that can be read; the one before stays.
        """
        if self._reloading is None:
            self._reloading = asyncio.Lock()
        async with self._reloading:
            number = self.snapshot.number + 1
            self.searcher.snapshot = await asyncio.to_thread(Snapshot.take, self.served, number)
            return self.snapshot

    async def stop(self) -> None:
        """Answer what waits, and end threads and processes."""
        await asyncio.to_thread(self.searcher.stop)
        await self.decoding.stop()

    async def _pixels(self, name: str, read: Read, shape: tuple[int, int, int]) -> np.ndarray:
        try:
            found = await self.decoding.pixels(read, shape)
        except BadImageError as error:
            self.metrics.refused[error.status] += 1
            raise BadImageError(error.status, f"{name} {error}") from None
        self.metrics.images += 1
        return found
