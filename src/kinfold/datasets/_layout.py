"""What the folders in a folder are: classes, or `train/`, `val/` and `test/` with class folders."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from kinfold.datasets._folder import find_classes, is_image, visible
from kinfold.datasets._images import ImageFiles
from kinfold.datasets._names import brief, part_named, shown


@dataclass
class Survey:
    """The folders in a folder.

    Attributes:
        classes: those that hold images, and whose names are not those of parts.
        parts: by part, those that hold folders and are named after a part.
        flat: those that hold images only, and are named after a part.
        images: how many images are beside the folders.
        folders: how many folders there are.
    """

    classes: list[Path] = field(default_factory=list)
    parts: dict[str, list[Path]] = field(default_factory=dict)
    flat: list[Path] = field(default_factory=list)
    images: int = 0
    folders: int = 0


def survey(path: Path) -> Survey:
    """Look into the folders of a folder."""
    found = Survey()
    for entry in visible(path):
        found.images += is_image(entry)
        if not entry.is_dir():
            continue
        found.folders += 1
        part = part_named(entry.name)
        images, inner = _holds(entry)
        if part is not None and inner:
            found.parts.setdefault(part, []).append(entry)
        elif images:
            (found.classes if part is None else found.flat).append(entry)
    return found


def check_not_flat(path: Path, found: Survey) -> None:
    """Say what to do about images whose classes nothing tells."""
    if found.flat and not found.classes and not found.parts:
        where, columns = found.flat[0], "path, label and split"
    elif found.images and not found.folders:
        where, columns = path, "path and label"
    else:
        return
    raise ValueError(
        f"{shown(where)} holds images without class folders. Put the images of each class in a "
        f"folder of their own, or list them in {shown(path / 'labels.csv')} with the columns "
        f"{columns}."
    )


def find_parts(path: Path, found: Survey) -> ImageFiles:
    """Image files by part and class."""
    for part, folders in found.parts.items():
        if len(folders) > 1:
            raise ValueError(
                f"{shown(path)} holds two folders for {part}: {folders[0].name} and "
                f"{folders[1].name}. Leave one of them there."
            )
    parts = {part: find_classes(folders[0]) for part, folders in found.parts.items()}
    names = sorted({name for files in parts.values() for name in files.names})
    number = {name: k for k, name in enumerate(names)}
    files: list[str] = []
    y: list[int] = []
    part_of: list[str] = []
    left_out: dict[str, list[str]] = {}
    for part, of_part in parts.items():
        inside = of_part.source.name
        files += [f"{inside}/{file}" for file in of_part.files]
        y += [number[of_part.names[k]] for k in of_part.y]
        part_of += [part] * len(of_part.files)
        for what, entries in of_part.left_out.items():
            left_out.setdefault(what, []).extend(f"{inside}/{entry}" for entry in entries)
    read = {of_part.source for of_part in parts.values()}
    beside = [entry for entry in visible(path) if entry not in read]
    left_out["folders that are no part"] = [brief(e.name) for e in beside if e.is_dir()]
    left_out["images outside the class folders"] += [brief(e.name) for e in beside if is_image(e)]
    none = "has folders of parts, with class folders but no readable image in them."
    return ImageFiles(path, path, files, y, names, none, part_of, left_out)


def _holds(folder: Path) -> tuple[bool, bool]:
    """Whether a folder holds images, and whether it holds folders."""
    images = inner = False
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                inner = inner or entry.is_dir()
                images = images or is_image(Path(entry.path))
    return images, inner
