"""Images that lie in larger files, decoded as they are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from kinfold.datasets._decoding import Opener, decode_all, fill


class Openers(Protocol):
    """What finds images by number; it pickles, and may be called from several threads."""

    def __call__(self, rows: np.ndarray) -> Iterable[list[Opener]]:
        """What opens the images of these rows, increasing numbers, in their order.

        They come in lists, each to be read before the next is asked for, so that few are in memory.
        """
        ...


class Pictures:
    """Reads encoded images.

    Args:
        openers: finds them.
        y: int [n], the class of each: another of the class stands in for an unreadable one.
        names: of the classes.
        size: (height, width) of every image, in pixels.
        channels: 3 for RGB, 1 for grey.
        source: the data as the user named it, for messages.
    """

    def __init__(
        self,
        openers: Openers,
        y: np.ndarray,
        names: tuple[str, ...],
        size: tuple[int, int],
        channels: int,
        source: object,
    ) -> None:
        self.openers, self.y, self.names, self.source = openers, y, names, source
        self.size, self.channels = size, channels
        self.shape: tuple[int, ...] = (*size, channels)
        self.dtype = np.dtype(np.uint8)
        self.unreadable: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.y)

    def keep_apart(self, parts: np.ndarray) -> None:
        """Let no example stand in for one of another part; `parts` int [n] holds the parts."""
        self.y = parts * len(self.names) + self.y % len(self.names)

    def leave_out(self, unreadable: dict[int, str]) -> None:
        self.unreadable.update(unreadable)

    def read(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape), self.dtype)
        fill(self._decoded, rows, self.y, self.unreadable, out, self.names, self.source)
        return out

    def _decoded(self, rows: np.ndarray) -> list[np.ndarray | str]:
        return [
            picture
            for openers in self.openers(rows)
            for picture in decode_all(openers, self.size, self.channels)
        ]
