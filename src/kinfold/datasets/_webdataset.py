"""Images in tar files, as WebDataset writes them."""

from __future__ import annotations

import functools
import io
import json
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kinfold.core.stored import Stored
from kinfold.datasets._decoding import Opener, check_decoding
from kinfold.datasets._folder import visible
from kinfold.datasets._images import EXTENSIONS
from kinfold.datasets._labels import number
from kinfold.datasets._names import as_text, brief, counted, either, shown
from kinfold.datasets._pictures import Pictures
from kinfold.datasets._shards import parts_by_name, shards
from kinfold.datasets._source import Source
from kinfold.datasets._split import Split, check_classes
from kinfold.datasets._tar import members
from kinfold.datasets._words import LABELS

_KEYS = (*LABELS, "cls", "class_name", "category")
_TEXTS = ("cls", "json", "txt")  # what may hold a label; the first that does counts
_LONGEST = 1 << 20  # bytes of such a file
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


@dataclass
class _Sample:
    """The files of one sample."""

    image: tuple[str, int, int] | None = None  # name in the tar, offset, size
    texts: dict[str, bytes] = field(default_factory=dict)  # by extension
    label: str | None = None
    group: str | None = None


class TarMembers:
    """Finds files in tars by where they lie.

    Args:
        files: the tars.
        of: int32 [n], which tar holds each file.
        offsets: int64 [n], where it starts in the tar.
        sizes: int64 [n], its bytes.
    """

    def __init__(
        self, files: Sequence[Path], of: np.ndarray, offsets: np.ndarray, sizes: np.ndarray
    ) -> None:
        self.files, self.of, self.offsets, self.sizes = list(files), of, offsets, sizes

    def __call__(self, rows: np.ndarray) -> Iterable[list[Opener]]:
        yield [functools.partial(self._open, row) for row in rows.tolist()]

    def _open(self, row: int) -> BinaryIO:
        # The tar is opened anew: threads and forked processes would share a place in it.
        return io.BytesIO(
            _read(self.files[self.of[row]], int(self.offsets[row]), int(self.sizes[row]))
        )


def open_tars(path: Path, size: tuple[int, int], channels: int, group: str | None = None) -> Source:
    """Open images in tars; labels are read, images only as they are asked for.

    A sample is the files whose names are the same up to the first dot: an image and its label, in
    `.cls` (an integer or text), in `.json` under `label`, `labels`, `class`, `target`, `y`, `cls`,
    `class_name` or `category`, or in `.txt`; the first of these that holds one counts. Samples
    without an image or a label are left out, and named in one warning.

    Args:
        path: a `.tar`, or a folder of them, read in order of name. Names such as `train-0000.tar`
            and `val-0000.tar` tell the parts.
        size: (height, width) of every image, in pixels.
        channels: 3 for RGB, 1 for grey.
        group: a key of the `.json` whose values splits must keep whole.

    Raises:
        ImportError: pillow is missing.
        ValueError: a tar is missing, compressed or damaged; no sample has an image and a label; a
            sample has no such key; there is one class only.
    """
    height, width = check_decoding(size, channels)
    for file in visible(path) if path.is_dir() else [path]:
        check_uncompressed(file)
    files = shards(path, ".tar")
    left_out: dict[str, list[str]] = {"samples without an image": [], "samples without a label": []}
    names: list[str] = []
    labels: list[str] = []
    groups: list[str] = []
    places: list[tuple[int, int, int]] = []
    for k, file in enumerate(files):
        for key, sample in _samples(file, group).items():
            if sample.image is None or sample.label is None:
                what = "an image" if sample.image is None else "a label"
                left_out[f"samples without {what}"].append(brief(f"{file.name}/{key}"))
                continue
            if group is not None and sample.group is None:
                raise ValueError(
                    f"{shown(file)}: the sample {brief(key)} has no .json with a string or an "
                    f"integer under {brief(repr(group))}, to keep the samples of its values "
                    "together."
                )
            name, offset, length = sample.image
            names.append(as_text(f"{file.name}/{name}"))
            labels.append(sample.label)
            groups.append(sample.group or "")
            places.append((k, offset, length))
    said = "; ".join(counted(what, entries) for what, entries in left_out.items() if entries)
    if said:
        warnings.warn(f"{shown(path)}: left out: {said}.", stacklevel=3)
    if not places:
        raise ValueError(
            f"{shown(path)} holds no sample with an image and a label. A sample is files of one "
            f"name: an image ({', '.join(EXTENSIONS)}) and its label in .cls, .txt or .json, there "
            f"under {either(_KEYS)}."
        )
    y, classes = _numbered(labels, path)
    check_classes(classes, path)
    of, offsets, sizes = np.array(places, np.int64).T.copy()
    openers = TarMembers(files, of.astype(np.int32), offsets, sizes)
    reader = Pictures(openers, y, classes, (height, width), channels, path)
    by_name = parts_by_name(path, files)
    return Source(
        Split(Stored(reader), y, classes, tuple(names)),
        None if by_name is None else [by_name[k] for k in of.tolist()],
        None if group is None else groups,
        files,
    )


def _samples(file: Path, group: str | None) -> dict[str, _Sample]:
    """The samples of a tar by name, in the order in which they start."""
    if not file.is_file():
        raise ValueError(f"{shown(file)} is not a file.")
    found: dict[str, _Sample] = {}
    with file.open("rb") as whole:  # to read labels
        for name, offset, size in members(file):
            parted = re.fullmatch(r"((?:.*/)?[^/.]+)\.([^/]*)", name, re.DOTALL)
            if parted is None:
                continue
            key, extension = parted[1], parted[2].lower()
            sample = found.setdefault(key, _Sample())
            if f".{extension}" in EXTENSIONS and sample.image is None:
                sample.image = (name, offset, size)
            elif extension in _TEXTS and size <= _LONGEST:
                whole.seek(offset)
                sample.texts[extension] = whole.read(size)
    for sample in found.values():
        values = _json(sample.texts.get("json", b""))
        sample.label = _label(sample.texts, values)
        sample.group = None if group is None else _word(values.get(group))
        sample.texts.clear()
    return found


def check_uncompressed(file: Path) -> None:
    if file.name.lower().endswith((".tar", *_ENDINGS)) and file.is_file():
        with file.open("rb") as start:
            if start.read(8).startswith(_COMPRESSED):
                raise ValueError(
                    f"{shown(file)} is compressed, and images are read from the middle of a tar. "
                    "Unpack it to a plain .tar, as gunzip does with a .tar.gz."
                )


def _read(file: Path, offset: int, size: int) -> bytes:
    with file.open("rb") as whole:
        whole.seek(offset)
        content = whole.read(size)
    if len(content) < size:
        raise ValueError("the tar is cut short")
    return content


def _label(texts: dict[str, bytes], values: dict[str, object]) -> str | None:
    in_json = [word for key in _KEYS if (word := _word(values.get(key))) is not None]
    return _text(texts.get("cls")) or next(iter(in_json), None) or _text(texts.get("txt"))


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode("utf-8", "surrogateescape").strip() or None


def _json(content: bytes) -> dict[str, object]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _word(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return str(value).strip() or None


def _numbered(labels: Sequence[str], path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels int32 [n] and the names of the classes, in order of number where all are integers."""
    words = set(labels)
    integers = all(re.fullmatch(r"0|-?[1-9]\d{0,17}", word, re.ASCII) for word in words)
    numbers, classes = number(sorted(words, key=int if integers else None), None, path)
    return np.array([numbers[word] for word in labels], np.int32), classes
