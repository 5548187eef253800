"""Arrays as NumPy saves them: what their headers claim, and reading what is there."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np

from kinfold.core.installed_memory import check_fits
from kinfold.datasets._names import brief, shown


def read_array(file: Any, key: str, path: object) -> np.ndarray:
    """One array, read where the file holds what its header claims, and memory is enough."""
    with damage(path, key):
        header = member_header(file, key)
    check_array_fits(header, key, path)
    with damage(path, key):
        return np.asarray(file[key])


class Header(NamedTuple):
    """What the header of an array claims, and where the numbers start."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    start: int

    @property
    def needed(self) -> int:
        """Bytes that the array and its copy as float32 take."""
        numbers = math.prod(self.shape)
        copy = 0 if self.dtype in (np.float32, np.uint8) else 4 * numbers
        return numbers * self.dtype.itemsize + copy


def check_array_fits(header: Header, key: str, path: object) -> None:
    """Refuse an array that is larger than memory, before it is read."""
    what = f"{shown(path)}: the array {brief(repr(key))} needs"
    check_fits(header.needed, what, "Save fewer examples in it.")


def member_header(file: Any, key: str) -> Header:
    """The header of an array in an `.npz` file."""
    info = file.zip.getinfo(member_name(file, key))
    with file.zip.open(info) as member:
        return read_header(member, info.file_size)


def member_name(file: Any, key: str) -> str:
    """The name in the zip of an array."""
    return key if key in file.zip.namelist() else f"{key}.npy"


def read_header(file: IO[bytes], size: int) -> Header:
    """The header at the start of an array of `size` bytes; refuse one that claims more."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"its header is of the version {version}, which is not known")
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(file)
    claimed, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if (claimed > held and not dtype.hasobject) or min(shape, default=0) < 0:
        raise ValueError(
            f"its header claims the shape {shape}, {claimed:,} bytes, and {held:,} are there"
        )
    return Header(shape, fortran, dtype, file.tell())


@contextlib.contextmanager
def damage(path: object, key: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # NumPy's and zipfile's readers raise many kinds
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{shown(path)}: {brief(repr(key))} holds Python objects, which are not loaded, "
                "since unpickling can run any code. Save numbers, and strings as a NumPy string "
                "array."
            ) from None
        what = f", the array {brief(repr(key))} is damaged" if key else ""
        said = shown(str(error) or type(error).__name__)
        raise ValueError(f"{shown(path)} cannot be read{what}: {said}") from error
