"""Images in folders, a folder a class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kinfold.datasets._split import Split, check_classes

if TYPE_CHECKING:
    from PIL import Image

EXTENSIONS = (
    ".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
_SHOWN = 10  # names in a warning, before only counting


def image_folder(
    path: str | os.PathLike[str],
    size: tuple[int, int] = (224, 224),
    channels: int = 3,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Split:
    """Read the images of a folder that holds a folder for each class: `path/class/image.jpg`.

    Classes and files are taken in the order of their names. A file is an image where its
    extension, in any case, is one of bmp, gif, jpeg, jpg, pbm, pgm, png, ppm, tif, tiff, webp;
    other files are passed over, and so are hidden files and folders (a leading dot). Folders
    inside a class folder are not read.

    An image is turned upright as its EXIF orientation says, its shorter side is scaled to fill
    `size`, and the centre is cut out. Palettes become colours, CMYK becomes RGB, 16-bit grey
    becomes 8-bit by dividing by 257, transparent parts are laid on white, and of an animation the
    first frame is taken.

    What cannot be used is named in one warning and left out: unreadable or truncated files (and
    those so large that Pillow refuses them as decompression bombs), classes without a readable
    image, and folders inside a class folder.

    All images are held in memory at once: files x height x width x channels bytes, 147 KiB for an
    image of 224 x 224 x 3. This is checked against the machine's memory before any file is read.

    Args:
        path: the folder of class folders.
        size: (height, width) of every image returned, in pixels.
        channels: 3 for RGB, 1 for grey.
        strict: refuse unreadable files instead of leaving them out.
        progress: called with (files done, files in all).

    Returns:
        A `Split` with `x` uint8 `[n, height, width, channels]`; names are those of the folders.

    Raises:
        ImportError: pillow is missing.
        ValueError: there is no such folder, no class folder or fewer than two classes with
            images; `size` or `channels` is wrong; the images do not fit in memory; or `strict`
            and a file is unreadable.

    Example:

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> from kinfold.datasets import image_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
    ...         pathlib.Path(folder, name).mkdir()
    ...         Image.new("RGB", (20, 10), colour).save(pathlib.Path(folder, name, "1.png"))
    ...     split = image_folder(folder, size=(8, 8))
    >>> split.x.shape, split.y.tolist(), split.names
    ((2, 8, 8, 3), [0, 1], ('blue', 'red'))
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ImportError("image_folder() needs pillow: pip install kinfold[train]") from error

    height, width = _checked_size(size)
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (RGB). Received {channels!r}.")
    folders, nested = _find(Path(path))
    files = [(k, file) for k, found in enumerate(folders.values()) for file in found]
    _check_memory(len(files) * height * width * channels, len(files))

    x = np.empty((len(files), height, width, channels), np.uint8)
    folder_of = np.empty(len(files), np.int32)
    unreadable, n = [], 0
    pool = ThreadPoolExecutor()  # Pillow decodes outside the interpreter's lock
    try:
        pictures = pool.map(lambda file: _read(file[1], (height, width), channels), files)
        for done, ((k, file), picture) in enumerate(zip(files, pictures, strict=True), 1):
            if isinstance(picture, str):
                unreadable.append(f"{os.path.join(*file.parts[-2:])} ({picture})")
            else:
                x[n], folder_of[n] = picture, k
                n += 1
            if progress is not None:
                progress(done, len(files))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for every file
    if unreadable and strict:
        raise ValueError(f"{path}: {_listed('unreadable', unreadable)}.")

    ids, y = np.unique(folder_of[:n], return_inverse=True)
    every = list(folders)
    names = tuple(every[k] for k in ids)
    empty = [name for name in every if name not in set(names)]
    skipped = [
        _listed(what, entries)
        for what, entries in (
            ("unreadable", unreadable),
            ("classes without a readable image", empty),
            ("folders inside a class folder", nested),
        )
        if entries
    ]
    if skipped:
        warnings.warn(f"{path}: left out: {'; '.join(skipped)}.", stacklevel=2)
    if not names:
        raise ValueError(
            f"{path} has class folders but no readable image in them. Images are files "
            f"path/class/name with one of the extensions {', '.join(EXTENSIONS)}."
        )
    check_classes(names, path)
    return Split(x[:n], y.astype(np.int32), names)


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if (
        not isinstance(size, Sequence)
        or len(size) != 2
        or not all(isinstance(side, int | np.integer) and side > 0 for side in size)
    ):
        raise ValueError(
            f"size must be (height, width), two whole numbers of pixels. Received {size!r}."
        )
    return int(size[0]), int(size[1])


def _find(path: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """Image files by class, in order of name, and the folders inside class folders."""
    if not path.is_dir():
        found = "It is a file" if path.exists() else "There is nothing there"
        raise ValueError(f"{path} is not a folder of class folders. {found}.")
    classes = [entry for entry in _visible(path) if entry.is_dir()]
    if not classes:
        raise ValueError(
            f"{path} holds no folder. Put the images of each class in a folder of their own, "
            "named after the class."
        )
    folders, nested = {}, []
    for folder in classes:
        entries = _visible(folder)
        folders[folder.name] = [
            entry for entry in entries if entry.suffix.lower() in EXTENSIONS and entry.is_file()
        ]
        nested += [f"{folder.name}/{entry.name}" for entry in entries if entry.is_dir()]
    return folders, nested


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _check_memory(needed: int, files: int) -> None:
    try:
        installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not known on this system
        return
    if needed > installed:
        raise ValueError(
            f"{files} images of this size need {needed / 2**30:.1f} GiB, and this machine has "
            f"{installed / 2**30:.1f} GiB of memory. Pass a smaller size, or fewer images."
        )


def _read(path: Path, size: tuple[int, int], channels: int) -> np.ndarray | str:
    """One image, uint8 `[height, width, channels]`, or why it cannot be read."""
    from PIL import Image, ImageOps

    height, width = size
    try:
        with Image.open(path) as image:
            image.draft(image.mode, (2 * max(size), 2 * max(size)))  # a JPEG decodes smaller
            upright = ImageOps.exif_transpose(image)
            plain = _plain(upright).convert("L" if channels == 1 else "RGB")
            fitted = ImageOps.fit(plain, (width, height), Image.Resampling.BICUBIC)
    except Exception as error:  # Pillow's readers raise many kinds
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return np.asarray(fitted).reshape(height, width, channels)


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


def _listed(what: str, entries: list[str]) -> str:
    """`unreadable (12): a, b, ... and 2 more`, with ten names at most."""
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return f"{what} ({len(entries)}): {', '.join(entries[:_SHOWN])}{more}"
