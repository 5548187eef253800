"""Decodes images that strangers have sent, in a process of its own (see `main`).

It lies beside the package, so that such a program starts without Keras. `kinfold_serving.decoding`
starts it, and ends it where an image takes too long.
"""

from __future__ import annotations

import contextlib
import io
import signal
import struct
import sys
import warnings

import numpy as np

from _kinfold_decode import fitted

# Of these formats Pillow reads the size before it decodes anything.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
PIXELS = 50_000_000  # width x height
MEMORY = 4 << 30  # bytes of addresses that the process may use

# What is asked for: the length of the file, and height, width and channels of the answer. With no
# channels the answer is a PNG file that fits into the height and width.
ASKED = struct.Struct("<IHHB")
# What is answered: one of the codes below, and the length of what follows.
ANSWERED = struct.Struct("<BI")
FINE, NO_IMAGE, DAMAGED, TOO_LARGE = range(4)


class RefusedError(Exception):
    """A file that is not decoded.

    Args:
        code: NO_IMAGE, DAMAGED or TOO_LARGE.
        why: in words, to stand behind the name of the file.
    """

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


def decode(file: bytes, height: int, width: int, channels: int) -> bytes:
    """The pixels of an image as a model takes them, uint8 [height, width, channels], or a PNG file.

    Raises:
        RefusedError: the file is no image, or damaged, or too large.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a bomb is refused below, by its size
            image = Image.open(io.BytesIO(file), formats=FORMATS)
    except Image.DecompressionBombError:
        raise RefusedError(TOO_LARGE, _TOO_MANY) from None
    except Image.UnidentifiedImageError:
        known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise RefusedError(NO_IMAGE, f"is no image of a format that is taken: {known}.") from None
    except Exception:  # Pillow's readers raise many kinds
        raise RefusedError(DAMAGED, "is damaged: its header cannot be read.") from None
    with image:
        if image.width * image.height > PIXELS:
            raise RefusedError(TOO_LARGE, _TOO_MANY)
        try:
            image.draft(image.mode, (2 * max(height, width),) * 2)  # a JPEG decodes smaller
            if channels:
                return fitted(image, (height, width), channels).tobytes()
            return _smaller(image, height, width)
        except MemoryError:
            raise RefusedError(TOO_LARGE, "needs too much memory.") from None
        except Exception:
            raise RefusedError(DAMAGED, "is damaged, or its end is missing.") from None


_TOO_MANY = f"has more than {PIXELS // 1_000_000} million pixels."


def _smaller(image: object, height: int, width: int) -> bytes:
    """A PNG file of the whole image, no larger than this."""
    from PIL import Image

    assert isinstance(image, Image.Image)
    scale = min(1.0, height / image.height, width / image.width)
    size = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # on its side
    pixels = fitted(image, size[::-1] if turned else size, 3)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _limit() -> None:
    """Bound the memory of this process, where the system can."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Answer requests until there are no more, as when the process that asks has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    from PIL import Image

    Image.preinit()
    Image.init()
    _limit()
    given, out = sys.stdin.buffer, sys.stdout.buffer
    while True:
        head = given.read(ASKED.size)
        if len(head) < ASKED.size:
            return
        length, height, width, channels = ASKED.unpack(head)
        file = given.read(length)
        try:
            code, answer = FINE, decode(file, height, width, channels)
        except RefusedError as refused:
            code, answer = refused.code, str(refused).encode()
        out.write(ANSWERED.pack(code, len(answer)))
        out.write(answer)
        out.flush()


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
