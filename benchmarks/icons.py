"""Icons in eight noisy views each: images of many classes, some of which differ by little."""

from pathlib import Path

import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from kinfold.datasets import Split, split_classes

SIZE, CLASSES, VIEWS, TEST = 24, 1600, 8, 0.375
_LARGER = 4  # drawn so much larger, and averaged down


def icons(font: Path) -> tuple[Split, Split]:
    """Draw 1,600 random icons of a font, and divide them into 1,000 to train on and 600 to test on.

    A view turns the icon by up to 12 degrees, shears and moves it, scales it by 0.85 to 1.1, covers
    a rectangle, and adds noise. Many icons are another one with a small sign added.

    Args:
        font: such as materialdesignicons-webfont.ttf of the npm package @mdi/font.

    Returns:
        (train, test), with `x` uint8 [n, 24, 24, 1].
    """
    rng = np.random.default_rng(0)
    codes = sorted(code for code, glyph in FT2Font(str(font)).get_charmap().items() if glyph)
    chosen = rng.permutation(codes)[:CLASSES]
    side = SIZE * _LARGER
    face = ImageFont.truetype(str(font), side * 3 // 4)
    x = np.empty((CLASSES, VIEWS, SIZE, SIZE, 1), np.uint8)
    for one, code in enumerate(chosen):
        icon = Image.new("L", (side, side))
        ImageDraw.Draw(icon).text((side / 2, side / 2), chr(code), 255, face, anchor="mm")
        for view in range(VIEWS):
            x[one, view, ..., 0] = _view(rng, icon)
    y = np.repeat(np.arange(CLASSES, dtype=np.int32), VIEWS)
    names = tuple(f"U+{code:04X}" for code in chosen)
    return split_classes(Split(x.reshape(-1, SIZE, SIZE, 1), y, names), TEST)


def _view(rng: np.random.Generator, icon: Image.Image) -> np.ndarray:
    angle, shear = np.deg2rad(rng.uniform(-12, 12)), rng.uniform(-0.1, 0.1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    back = np.linalg.inv(turn @ np.array([[1, shear], [0, 1]]) * rng.uniform(0.85, 1.1))
    centre = np.full(2, icon.width / 2)
    start = centre - back @ (centre + rng.uniform(-0.04, 0.04, 2) * icon.width)
    (a, b), (c, d) = back
    moved = icon.transform(
        icon.size,
        Image.Transform.AFFINE,
        (a, b, start[0], c, d, start[1]),
        Image.Resampling.BILINEAR,
    )
    values = np.array(moved.reduce(_LARGER), np.float32)
    height, width = rng.integers(SIZE // 6, SIZE // 3, 2)
    top, left = rng.integers(0, SIZE - height), rng.integers(0, SIZE - width)
    values[top : top + height, left : left + width] = rng.uniform(0, 255)
    values = values * rng.uniform(0.5, 1) + rng.normal(0, 20, values.shape)
    return np.clip(values, 0, 255).astype(np.uint8)
