"""Chinese characters in many typefaces: many classes are alike but for a stroke."""

from pathlib import Path

import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from kinfold.datasets import Split, split_classes

SIZE, CLASSES, LEAST, TEST = 32, 1200, 8, 0.3
_FIRST, _LAST = 0x4E00, 0x9FFF  # of Unicode's block of the characters in use
_LARGER = 2  # drawn so much larger, and averaged down


def characters(fonts: Path) -> tuple[Split, Split]:
    """Draw 1,200 random characters, each once in every font that has it.

    Characters of fewer than 8 different pictures are left out, and equal pictures, such as those of
    the proportional face of a font, count once.

    Args:
        fonts: a folder of .ttf, .otf and .ttc files, such as of Debian's packages fonts-arphic-*,
            fonts-cwtex-*, fonts-wqy-*, fonts-takao-* and fonts-mplus.

    Returns:
        (train, test), with `x` uint8 [n, 32, 32, 1].
    """
    faces = [face for path in sorted(fonts.rglob("*.[to]t[fc]")) if (face := _face(path))]
    counts = np.zeros(_LAST + 1, int)
    for _, codes in faces:
        counts[list(codes)] += 1
    rng = np.random.default_rng(0)
    x, y, names = [], [], []
    for code in rng.permutation(np.flatnonzero(counts >= LEAST)).tolist():
        drawn = {_picture(face, code).tobytes() for face, codes in faces if code in codes}
        if len(drawn) < LEAST:
            continue
        x += [np.frombuffer(one, np.uint8).reshape(SIZE, SIZE, 1) for one in sorted(drawn)]
        y += [len(names)] * len(drawn)
        names.append(f"U+{code:04X}")
        if len(names) == CLASSES:
            break
    return split_classes(Split(np.stack(x), np.array(y, np.int32), tuple(names)), TEST)


def _face(path: Path) -> tuple[ImageFont.FreeTypeFont, set[int]] | None:
    """A font and the characters that it has; None of one without Chinese characters."""
    there = FT2Font(str(path)).get_charmap()
    codes = {code for code, glyph in there.items() if glyph and _FIRST <= code <= _LAST}
    return (ImageFont.truetype(str(path), SIZE * _LARGER * 7 // 8), codes) if codes else None


def _picture(face: ImageFont.FreeTypeFont, code: int) -> np.ndarray:
    side = SIZE * _LARGER
    image = Image.new("L", (side, side))
    ImageDraw.Draw(image).text((side / 2, side / 2), chr(code), 255, face, anchor="mm")
    return np.array(image.reduce(_LARGER), np.uint8)
