"""Pictures of characters, drawn from the fonts that come with matplotlib."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kinfold.datasets._split import Split, split_classes

MIN_FACES = 8
"""A character is in the set where at least this many faces draw it, each in its own way."""

# Faces whose code points do not mean the characters drawn: placeholders, private codes and TeX's
# mathematical encodings; and the STIX sizes, which hold pieces of tall brackets.
_LEFT_OUT = ("LastResort", "STIXNonUni", "STIXSiz", "cmex", "cmmi", "cmsy")
# TeX's text faces: only ASCII letters and digits sit where Unicode has them ("<" draws "¡").
_LETTERS_ONLY = "cm"

_OVERSAMPLING = 4  # drawn larger and averaged down, so that hinting does not bend small glyphs
_BASELINE = 0.77  # of the tile's height, from its top
_SAME = 1.0  # grey levels, root mean square: a smaller difference is rasterisation, not drawing

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFont import FreeTypeFont

Progress = Callable[[int, int], None]


def glyphs(
    size: int = 32,
    test_fraction: float = 0.3,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Split, Split]:
    """Characters in many typefaces: real images that every matplotlib installation carries.

    A class is a character; its examples are its drawings in the font faces that matplotlib ships
    (DejaVu, STIX and Computer Modern, sorted by file name; no other font of the machine is read,
    so the result depends only on the versions of matplotlib and Pillow). Train and test hold
    different characters, so that the test asks whether unseen kinds of things are told apart.

    Which pictures:

    - white (255) on black (0), antialiased. A face is drawn at one size, one em to a tile, on one
      baseline, and each glyph is centred across: size and height tell "c" from "C" and "." from
      "˙". A glyph that sticks out is moved inside, and made smaller only where it is larger than
      the tile;
    - code points that a face has no glyph for, or draws blank, are left out of that face, and so
      are control, format, space and private-use code points;
    - two pictures are the same where they differ by less than 1 grey level in 255, root mean
      square. Characters that share a picture, such as Latin A, Greek Alpha and Cyrillic A, are one
      class (union-find over the same pictures), so that no picture has two labels and no picture
      of a test class is in train. Such a class has the name of its lowest code point;
    - of same pictures one is kept, so that no query is answered by its own copy;
    - a class is kept where its pictures come from at least 8 faces (`MIN_FACES`). Nothing else is
      chosen: no class is left out for being hard.

    Args:
        size: height and width of a tile, in pixels, 8 to 256.
        test_fraction: the share of characters held out for the test.
        seed: decides which characters are held out.
        progress: called with (drawings done, drawings in all).

    Returns:
        `(train, test)`, with `x` uint8 `[n, size, size, 1]`.

    Raises:
        ImportError: matplotlib or pillow is missing.
        ValueError: `size` is out of range, or `test_fraction` not between 0 and 1.

    Example:

    >>> from kinfold.datasets import glyphs
    >>> (x, y), (test_x, test_y) = glyphs()  # doctest: +SKIP
    """
    if not 8 <= size <= 256:
        raise ValueError(f"size must be from 8 to 256 pixels. Received {size!r}.")
    if not 0 < test_fraction < 1:
        raise ValueError(
            f"test_fraction must be between 0 and 1, both excluded. Received {test_fraction!r}."
        )
    faces = _faces()
    holders = Counter(code for codes in faces.values() for code in codes)
    faces = {f: [c for c in codes if holders[c] >= MIN_FACES] for f, codes in faces.items()}
    split = _classes(*_draw_faces(faces, size, progress))
    return split_classes(split, test_fraction, seed)


def _faces() -> dict[Path, list[int]]:
    """The faces used, each with the code points for which it truly holds the character."""
    try:
        import matplotlib
        from matplotlib.ft2font import FT2Font
    except ImportError as error:
        raise ImportError("glyphs() needs matplotlib: pip install kinfold[train]") from error

    faces = {}
    for path in sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf")):
        if path.name.startswith(_LEFT_OUT):
            continue
        charmap = FT2Font(str(path)).get_charmap()  # glyph 0 is the box for a missing glyph
        codes = sorted(code for code, glyph in charmap.items() if glyph and _is_drawn(code))
        if path.name.startswith(_LETTERS_ONLY):
            codes = [code for code in codes if code < 128 and chr(code).isalnum()]
        faces[path] = codes
    return faces


def _is_drawn(code: int) -> bool:
    category = unicodedata.category(chr(code))
    return category[0] != "Z" and category not in ("Cc", "Cf", "Co", "Cs")


def _draw_faces(
    faces: dict[Path, list[int]], size: int, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures uint8 `[n, size, size]`, their code points `[n]` and the numbers of faces `[n]`."""
    try:
        from PIL import ImageFont
    except ImportError as error:
        raise ImportError("glyphs() needs pillow: pip install kinfold[train]") from error

    pictures, codes, numbers = [], [], []
    done, total = 0, sum(len(held) for held in faces.values())
    for number, (path, held) in enumerate(faces.items()):
        # Basic layout: one code point, one glyph, whether or not the machine has libraqm.
        font = ImageFont.truetype(
            str(path), size * _OVERSAMPLING, layout_engine=ImageFont.Layout.BASIC
        )
        smaller = functools.cache(lambda points, font=font: font.font_variant(size=points))
        for code in held:
            picture = _draw(font, smaller, chr(code), size)
            if picture is not None:
                pictures.append(picture)
                codes.append(code)
                numbers.append(number)
        done += len(held)
        if progress is not None:
            progress(done, total)
    return np.stack(pictures), np.array(codes), np.array(numbers)


def _draw(
    font: FreeTypeFont, smaller: Callable[[int], FreeTypeFont], character: str, size: int
) -> np.ndarray | None:
    """One character, uint8 `[size, size]`, white on black; None where nothing is drawn."""
    from PIL import Image

    tile, margin = size * _OVERSAMPLING, _OVERSAMPLING
    inside = tile - 2 * margin
    drawn, baseline, box = _ink(font, character)
    if box is None:
        return None
    left, top, right, bottom = box
    largest = max(right - left, bottom - top)
    if largest > inside:
        drawn, baseline, box = _ink(smaller(int(font.size * inside / largest)), character)
        if box is None:
            return None
        left, top, right, bottom = box
    y = min(round(_BASELINE * tile) + top - baseline, tile - margin - (bottom - top))
    canvas = Image.new("L", (tile, tile))
    canvas.paste(drawn, ((tile - (right - left)) // 2 - left, max(y, margin) - top))
    return np.asarray(canvas.reduce(_OVERSAMPLING))


def _ink(
    font: FreeTypeFont, character: str
) -> tuple[Image.Image, int, tuple[int, int, int, int] | None]:
    """A drawn character, the row of its baseline, and the box of its ink, None where blank."""
    from PIL import Image, ImageDraw

    # Pillow's own box also takes in the origin and the advance, hence a second one for the ink.
    left, top, right, bottom = font.getbbox(character, anchor="ls")
    drawn = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(drawn).text((-left, -top), character, fill=255, font=font, anchor="ls")
    return drawn, int(-top), drawn.getbbox()


def _classes(pictures: np.ndarray, codes: np.ndarray, faces: np.ndarray) -> Split:
    """Merge characters that share a picture, keep one of the same pictures, apply MIN_FACES."""
    first, second = _same_pictures(pictures)
    characters, character = np.unique(codes, return_inverse=True)
    merged = _components(len(characters), character[first], character[second])
    label = merged[character]

    copy_of = _components(len(pictures), first, second)
    kept = copy_of == np.arange(len(pictures))
    pictures, label, faces = pictures[kept], label[kept], faces[kept]

    held = np.unique(np.stack([label, faces]), axis=1)  # each pair of class and face once
    enough = np.bincount(held[0], minlength=len(characters)) >= MIN_FACES
    kept = enough[label]
    ids, y = np.unique(label[kept], return_inverse=True)
    names = tuple(chr(code) for code in characters[ids])
    return Split(pictures[kept][..., np.newaxis], y.astype(np.int32), names)


def _same_pictures(pictures: np.ndarray, block: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Index pairs of pictures that differ by less than `_SAME`, root mean square."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    pixels = flat.shape[1]
    # Means differ by no more than the root mean square, so that a sorted window holds all pairs.
    mean = flat.mean(axis=1)
    order = np.argsort(mean, kind="stable")
    flat, mean = flat[order], mean[order]
    square = np.square(flat).sum(axis=1)
    pairs = []
    for start in range(0, len(flat), block):
        rows = slice(start, start + block)
        end = np.searchsorted(mean, mean[rows][-1] + _SAME, side="right")
        near = slice(start, end)
        distance = square[rows, None] + square[near] - 2 * (flat[rows] @ flat[near].T)
        i, j = np.nonzero(np.triu(distance < _SAME**2 * pixels, 1))
        pairs.append(order[start + np.stack([i, j])])
    first, second = np.concatenate(pairs, axis=1)
    return first, second


def _components(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Union-find: the lowest member of the group of each of `count` things, given equal pairs."""
    root = np.arange(count)
    while True:
        lowest = np.minimum(root[first], root[second])
        np.minimum.at(root, root[first], lowest)
        np.minimum.at(root, root[second], lowest)
        root = root[root]
        if np.array_equal(root[first], root[second]) and np.array_equal(root, root[root]):
            return root
