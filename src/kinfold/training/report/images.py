"""Examples as small pictures: thumbnails and the map, as data URIs."""

from __future__ import annotations

import base64
import copy
import io
from typing import Any

import numpy as np

from kinfold.core.stored import Stored


class Pictures:
    """Thumbnails of images [n, h, w] or [n, h, w, c].

    Drawings, one channel of ink on an even ground, become black ink on a transparent ground, so
    that the page can show them on its own paper, light or dark; `drawings` says so.

    `pixels` says whether the values are those of pictures: bytes, or numbers from 0 to 1 or 255.
    Other values, such as those of spectrograms, are shown grey from the lowest to the highest of
    the whole set, without its most extreme 1%.
    """

    def __init__(self, x: np.ndarray | Stored) -> None:
        self.x = x[..., None] if x.ndim == 3 else x
        self.low, self.high = _limits(x)
        self.pixels = self.low == 0.0 and self.high in (1.0, 255.0)
        self.dark_ground = False
        self.drawings = False
        if self.x.shape[-1] == 1 and self.pixels:
            sample = self._bytes(self.x[:: max(1, len(self.x) // 500)][..., 0])
            edge = np.concatenate(
                [sample[:, 0], sample[:, -1], sample[:, :, 0], sample[:, :, -1]], axis=1
            )
            self.dark_ground = bool(np.median(edge) < 128)
            ground = edge < 32 if self.dark_ground else edge > 223
            self.drawings = bool(ground.mean() > 0.8)

    def like(self, x: np.ndarray) -> Pictures:
        """Other images, shown on the same scale and in the same way."""
        other = copy.copy(self)
        other.x = x[..., None] if x.ndim == 3 else x
        return other

    def _bytes(self, x: np.ndarray) -> np.ndarray:
        if x.dtype == np.uint8:
            return x
        values = np.nan_to_num(x.astype("float32"), posinf=self.high, neginf=self.low)
        values = (values - self.low) * (255.0 / (self.high - self.low))
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)

    def thumbnail(self, index: int, size: int) -> Any:
        """A PIL image of at most size x size pixels; a smaller example keeps its own size."""
        from PIL import Image

        pixels = self._bytes(self.x[index])
        if self.drawings:
            ink = pixels[..., 0] if self.dark_ground else 255 - pixels[..., 0]
            image = Image.fromarray(np.stack([np.zeros_like(ink), ink], axis=-1))
        elif pixels.shape[-1] in (3, 4):
            image = Image.fromarray(np.ascontiguousarray(pixels))
        else:
            image = Image.fromarray(np.ascontiguousarray(pixels[..., 0]))
        image.thumbnail((size, size), Image.Resampling.LANCZOS)
        return image

    def uri(self, index: int, size: int = 96) -> str:
        """One example as a data URI."""
        return as_uri(self.thumbnail(index, size))

    def map(self, chosen: np.ndarray, cells: np.ndarray, grid: tuple[int, int], tile: int) -> str:
        """The examples in their cells on a transparent ground, as a data URI."""
        from PIL import Image, ImageOps

        size = (grid[0] * tile, grid[1] * tile)
        gap = tile // 10 if self.drawings else 1  # ink has no frame to part it from the next
        side = tile - 2 * gap
        sheet = Image.new("LA" if self.drawings else "RGBA", size)
        for index, (column, row) in zip(chosen, cells, strict=True):
            if column < 0:
                continue
            # The middle of the picture, so that tiles are square.
            image = ImageOps.fit(self.thumbnail(int(index), 2 * tile), (side, side))
            corner = (int(column) * tile + gap, int(row) * tile + gap)
            sheet.paste(image.convert(sheet.mode), corner)
        return as_uri(sheet, lossy=not self.drawings)


def _limits(x: np.ndarray | Stored) -> tuple[float, float]:
    """The values shown black and white."""
    if x.dtype == np.uint8:
        return 0.0, 255.0
    sample = x[:: max(1, len(x) // 500)].astype("float64")
    sample = sample[np.isfinite(sample)]
    low, high = (float(sample.min()), float(sample.max())) if sample.size else (0.0, 1.0)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if low >= 0 and high <= 255:
        return 0.0, 255.0
    low, high = (float(v) for v in np.quantile(sample, (0.005, 0.995)))
    return low, high if high > low else low + 1.0


def as_uri(image: Any, lossy: bool | None = None) -> str:
    """PNG for drawings and small pictures, JPEG or WebP for photos."""
    from PIL import features

    if lossy is None:
        lossy = image.mode in ("RGB", "L") and image.width * image.height > 32 * 32
    # JPEG has no transparent ground, which the gaps of the map need.
    webp = "webp" if features.check("webp") else "png"
    kind = "png" if not lossy else "jpeg" if image.mode in ("RGB", "L") else webp
    options: dict[str, object] = {"optimize": True} if kind == "png" else {"quality": 82}
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
