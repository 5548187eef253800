"""Examples in `.npz` and `.npy` files, read as they are needed."""

from __future__ import annotations

import itertools
import math
import os
import re
import struct
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from kinfold.core.readers import AllReadable, InMemory, Joined
from kinfold.core.stored import Reader, Stored
from kinfold.datasets._arrays import (
    Keys,
    as_examples,
    check_finite,
    example_form,
    find_keys,
    labelled,
    opened,
    part_and_role,
)
from kinfold.datasets._filling import fill
from kinfold.datasets._folder import visible
from kinfold.datasets._names import brief, shown
from kinfold.datasets._npy import (
    Header,
    check_array_fits,
    damage,
    member_header,
    member_name,
    read_array,
    read_header,
)
from kinfold.datasets._source import Source
from kinfold.datasets._split import Split
from kinfold.datasets._words import EXAMPLES, LABELS, WHOLE

_NUMBERS = 1 << 22  # read at once


class OnDisk(AllReadable):
    """Examples in one array of a file, of which only the rows that are asked for are read.

    The file is read, not mapped into memory: one that is cut short while a run reads it would end
    the process without a word.

    Args:
        file: holds the array.
        header: of the array, with `start` counted from the start of the file.
        source: the data as the user named it, for messages.
    """

    def __init__(self, file: Path, header: Header, source: Path) -> None:
        self.file, self.header, self.source = file, header, source
        self.shape, self.dtype = example_form(header.shape, header.dtype, source)
        self._known = _identity(file.stat())

    def __len__(self) -> int:
        return self.header.shape[0]

    def read(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape), self.dtype)
        step = max(1, _NUMBERS * len(rows) // max(out.size, 1))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            into = out[start : start + step]
            with np.errstate(over="ignore"):  # found below, as infinite
                into[...] = self._stored(some).reshape(into.shape)
            if self.dtype == np.float32:
                check_finite(into, self.source, some)
        return out

    def _stored(self, rows: np.ndarray) -> np.ndarray:
        """These rows as they lie in the file."""
        shape, fortran, dtype, start = self.header
        found = np.empty((len(rows), *shape[1:]), dtype)
        try:
            with self.file.open("rb", buffering=0) as file:
                if _identity(os.fstat(file.fileno())) != self._known:
                    raise ValueError("it is another file now")
                if fortran and len(shape) > 1:  # whose rows are scattered over all of it
                    found[...] = np.memmap(file, dtype, "r", start, shape, "F")[rows]
                elif len(rows):
                    _read_rows(file, found, rows, start)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(
                f"{shown(self.file)} cannot be read any more: {shown(error)}. It was moved or "
                "changed since it was opened."
            ) from None
        return found


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size


def _read_rows(file: FileIO, out: np.ndarray, rows: np.ndarray, start: int) -> None:
    """Read rows that lie in a file from `start` on, those that follow one another at once."""
    size = out.itemsize * math.prod(out.shape[1:])
    room = out.reshape(-1).view(np.uint8).data
    cuts = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
    for first, end in itertools.pairwise([0, *cuts, len(rows)]):
        file.seek(start + int(rows[first]) * size)
        fill(file, room[first * size : end * size])


def holds_arrays(path: Path) -> bool:
    """Whether a folder holds arrays saved with `numpy.save`."""
    return path.is_dir() and bool(_arrays_in(path))


def check_labels_beside(path: Path) -> None:
    """Refuse a lone `.npy` file that has no labels beside it."""
    _beside(path)


def open_arrays(path: Path) -> Source:
    """Open examples saved with NumPy; labels are read, examples only as they are asked for.

    Values that are not finite are refused when they are read. Arrays of a compressed `.npz` file
    are read whole.

    Args:
        path: an `.npz` file as `arrays` and `parts` read it; a folder that holds such arrays as
            `x.npy`, `y.npy` and, if any, `names.npy`, or as `x_train.npy`, `y_train.npy` and so on;
            or one of these files with examples, where the labels lie beside it.

    Raises:
        ValueError: as `arrays`.
    """
    if path.suffix.lower() == ".npz" and not path.is_dir():
        return _open_npz(path)
    files = _arrays_in(path) if path.is_dir() else _beside(path)
    return _open_npy(files, path if path.is_dir() else path.parent)


def _open_npz(path: Path) -> Source:
    with opened(path) as file:

        def array(key: str) -> np.ndarray:
            return read_array(file, key, path)

        def examples(key: str) -> Any:
            with damage(path, key):
                header = _place(path, file, key)
            if header is None:
                return as_examples(array(key), path)
            return Stored(OnDisk(path, header, path))

        return _source(find_keys(file.files, path), examples, array, file.files, path, [path])


def _place(path: Path, file: Any, key: str) -> Header | None:
    """Where an array lies in the `.npz`; None where it is compressed or holds objects."""
    info = file.zip.getinfo(member_name(file, key))
    header = member_header(file, key)
    if info.compress_type or info.file_size != info.compress_size or header.dtype.hasobject:
        return None
    with path.open("rb") as whole:
        whole.seek(info.header_offset)
        lengths = struct.unpack("<26xHH", whole.read(30))  # of the name, and of what else is there
        size = whole.seek(0, 2)
    start = info.header_offset + 30 + sum(lengths)
    if start + info.file_size > size:
        raise ValueError("the file ends before it does")
    return header._replace(start=start + header.start)


def _open_npy(files: dict[str, Path], source: Path) -> Source:
    keys = find_keys(list(files), source)

    def header(key: str) -> Header:
        with damage(source, key), files[key].open("rb") as file:
            return read_header(file, files[key].stat().st_size)

    def array(key: str) -> np.ndarray:
        check_array_fits(header(key), key, source)
        with damage(source, key):
            return np.asarray(np.load(files[key], allow_pickle=False))

    def examples(key: str) -> Any:
        found = header(key)
        if found.dtype.hasobject:
            return array(key)  # which says why it is not read
        return Stored(OnDisk(files[key], found, source))

    used = [files[key] for of in keys.values() for key in of.values()]
    used += [files["names"]] if "names" in files else []
    return _source(keys, examples, array, list(files), source, used)


def _source(
    keys: Keys,
    examples: Callable[[str], Any],
    array: Callable[[str], np.ndarray],
    files: Sequence[str],
    source: Path,
    kept_in: list[Path],
) -> Source:
    x, y, names = labelled(keys, examples, array, files, source)
    if WHOLE in x:
        whole = x[WHOLE] if isinstance(x[WHOLE], Stored) else Stored(InMemory(x[WHOLE]))
        return Source(Split(whole, y[WHOLE], names), None, None, kept_in)
    types = {part: found.dtype for part, found in x.items()}
    if len(set(types.values())) > 1:
        raise ValueError(
            f"{shown(source)}: the examples of all parts must have one type, uint8 for images or "
            f"numbers. Received {', '.join(f'{kind} ({part})' for part, kind in types.items())}."
        )
    readers: list[Reader] = [
        found.reader if isinstance(found, Stored) else InMemory(found) for found in x.values()
    ]
    joined = Split(Stored(Joined(readers)), np.concatenate(list(y.values())), names)
    return Source(joined, [part for part in y for _ in y[part]], None, kept_in)


def _arrays_in(folder: Path) -> dict[str, Path]:
    return {
        entry.stem: entry
        for entry in visible(folder)
        if entry.suffix.lower() == ".npy" and entry.is_file()
    }


def _beside(path: Path) -> dict[str, Path]:
    """The array of examples, the one of their labels and that of names, under the usual keys."""
    if not path.is_file():
        raise ValueError(f"{shown(path)} is not a file.")
    files = _arrays_in(path.parent)
    roles = {key: _role(key) for key in files}
    part, role = _role(path.stem)
    labels = [key for key, found in roles.items() if found == (part, "y")]
    others = [key for key, (_, found) in roles.items() if found is None and key != path.stem]
    known = role == "x" or (role is None and set(others) <= {"names"})
    if not known or path.stem == "names" or len(labels) != 1:
        raise ValueError(
            f"{shown(path)} holds one array, and no labels. Put both in an .npz file: "
            "numpy.savez('data.npz', x=numpy.load('data.npy'), y=labels). Or save the labels as "
            f"y.npy beside it; found there: {', '.join(map(brief, files)) or 'none'}."
        )
    found = {"x": path, "y": files[labels[0]]}
    return found | ({"names": files["names"]} if "names" in files else {})


def _role(key: str) -> tuple[str, str | None]:
    """The part that an array is of, and whether it is x or y of it."""
    for part, role in part_and_role(key):
        return part, role
    word = key.lower()
    if word in LABELS or word == "targets":
        return WHOLE, "y"
    return WHOLE, "x" if re.fullmatch("|".join(EXAMPLES), word) else None
