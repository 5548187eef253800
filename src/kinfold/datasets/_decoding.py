"""Image files as pixels: one, several at a time, and others in the place of unreadable ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from kinfold.datasets._names import brief, shown

if TYPE_CHECKING:
    from PIL import Image

_BLOCK = 256  # examples read at once, so that few are held twice

Opener = Callable[[], BinaryIO | Path]

_pools: dict[int, ThreadPoolExecutor] = {}  # by process: threads do not survive a fork


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


def decode(file: BinaryIO | Path, size: tuple[int, int], channels: int) -> np.ndarray | str:
    """One image, uint8 `[height, width, channels]`, or why it cannot be read."""
    from PIL import Image, ImageOps

    height, width = size
    try:
        if isinstance(file, Path) and not file.is_file():  # a device or a pipe would never end
            return "a folder or device" if file.exists() else "no such file"
        with Image.open(file) as image:
            image.draft(image.mode, (2 * max(size), 2 * max(size)))  # a JPEG decodes smaller
            upright = ImageOps.exif_transpose(image)
            plain = _plain(upright).convert("L" if channels == 1 else "RGB")
            fitted = ImageOps.fit(plain, (width, height), Image.Resampling.BICUBIC)
    except Exception as error:  # Pillow's readers raise many kinds
        return reason(error)
    return np.asarray(fitted).reshape(height, width, channels)


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

    def one(opener: Opener) -> np.ndarray | str:
        try:
            file = opener()
        except Exception as error:  # whatever the file is in is damaged or gone
            return reason(error)
        if isinstance(file, Path):
            return decode(file, size, channels)
        with file:
            return decode(file, size, channels)

    if len(openers) == 1:
        return [one(openers[0])]
    return list(_pool().map(one, openers))


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
    """The threads of this process; Pillow decodes outside the interpreter's lock."""
    process = os.getpid()
    if process not in _pools:  # of two made at once, setdefault keeps one; the other has no thread
        _pools.setdefault(process, ThreadPoolExecutor(os.cpu_count(), "kinfold-decode"))
    return _pools[process]


def reason(error: Exception) -> str:
    """Why a reader failed, in one line."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _plain(image: Image.Image) -> Image.Image:
    """The image in 8 bits without transparency: what Pillow's `convert` would clip or drop."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey; "I" where Pillow widened it to 32 bits
        grey = np.clip(np.asarray(image), 0, 65535) / 257
        return Image.fromarray(np.round(grey).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image)
    return image
