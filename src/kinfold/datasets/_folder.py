"""Images in folders, a folder for each class."""

from __future__ import annotations

import os
from pathlib import Path

from kinfold.datasets._images import EXTENSIONS, ImageFiles, Progress, read_images
from kinfold.datasets._names import brief, shown
from kinfold.datasets._split import Split


def image_folder(
    path: str | os.PathLike[str],
    size: tuple[int, int] = (224, 224),
    channels: int = 3,
    strict: bool = False,
    progress: Progress | None = None,
) -> Split:
    r"""Read the images of a folder that holds a folder for each class: `path/class/image.jpg`.

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
        A `Split` with `x` uint8 `[n, height, width, channels]`; names are those of the folders
        (bytes that are not UTF-8 as escapes such as `\xe9`), files are `class/image.jpg`.

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
    return read_images(find_classes(Path(path)), size, channels, strict, progress)[0]


def find_classes(path: Path) -> ImageFiles:
    """Image files by class, in order of name."""
    if not path.is_dir():
        found = "It is a file" if path.exists() else "There is nothing there"
        raise ValueError(f"{shown(path)} is not a folder of class folders. {found}.")
    folders = [entry for entry in visible(path) if entry.is_dir()]
    if not folders:
        raise ValueError(
            f"{shown(path)} holds no folder. Put the images of each class in a folder of their "
            "own, named after the class."
        )
    files, y, nested = [], [], []
    for k, folder in enumerate(folders):
        for entry in visible(folder):
            if is_image(entry):
                files.append(f"{folder.name}/{entry.name}")
                y.append(k)
            elif entry.is_dir():
                nested.append(brief(f"{folder.name}/{entry.name}"))
    outside = [brief(entry.name) for entry in visible(path) if is_image(entry)]
    none = (
        "has class folders but no readable image in them. Images are files path/class/name with "
        f"one of the extensions {', '.join(EXTENSIONS)}."
    )
    if not files and nested:
        none += f" Only folders are in them: is it {shown(folders[0])} that you mean?"
    return ImageFiles(
        path,
        path,
        files,
        y,
        [folder.name for folder in folders],
        none,
        left_out={
            "folders inside a class folder": nested,
            "images outside the class folders": outside,
        },
    )


def is_image(entry: Path) -> bool:
    """Whether a file is an image by its extension."""
    return entry.suffix.lower() in EXTENSIONS and entry.is_file()


def visible(folder: Path) -> list[Path]:
    """The entries of a folder in order of name, without hidden ones."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
