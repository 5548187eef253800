"""Decodes image files; as a program, those that another process asks for (see `main`).

It lies beside the package, so that such a program starts without Keras.
"""

from __future__ import annotations

import io
import pickle
import signal
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# What goes before an image: 0 where its pixels follow, or the length of why it cannot be read.
HEAD = struct.Struct("<i")


def decode(file: BinaryIO | Path | bytes, size: tuple[int, int], channels: int) -> np.ndarray | str:
    """One image, uint8 `[height, width, channels]`, or why it cannot be read."""
    from PIL import Image

    try:
        if isinstance(file, Path) and not file.is_file():  # a device or a pipe would never end
            return "a folder or device" if file.exists() else "no such file"
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            image.draft(image.mode, (2 * max(size), 2 * max(size)))  # a JPEG decodes smaller
            return fitted(image, size, channels)
    except Exception as error:  # Pillow's readers raise many kinds
        return reason(error)


def fitted(image: Image.Image, size: tuple[int, int], channels: int) -> np.ndarray:
    """The pixels of an image as a model takes them: upright, cut to size, of 8 bits."""
    from PIL import Image, ImageOps

    height, width = size
    plain = _plain(ImageOps.exif_transpose(image))
    mode = "L" if channels == 1 else "RGB"
    plain = plain if plain.mode == mode else plain.convert(mode)
    cut = ImageOps.fit(plain, (width, height), Image.Resampling.BICUBIC)
    return np.asarray(cut).reshape(height, width, channels)


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


def main() -> None:
    """Answer requests until there are no more, as when the process that asks has ended.

    A request is pickled: (size, channels, images), each image a path or the bytes of a file. The
    answer has `HEAD` and what it announces for each image, in order.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    given, out = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            size, channels, images = pickle.load(given)
        except EOFError:
            return
        for image in images:
            found = decode(image, size, channels)
            said = b"" if isinstance(found, np.ndarray) else found.encode("utf-8", "replace")
            out.write(HEAD.pack(len(said)))
            out.write(said or found)  # type: ignore[arg-type]
        out.flush()


if __name__ == "__main__":
    main()
