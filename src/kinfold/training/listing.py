"""What a run is trained on: which examples, with fingerprints of their files; no example itself.

For each split the files or rows of its examples, their labels and the names of their classes.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kinfold.core import files
from kinfold.core.stored import Stored
from kinfold.datasets import Split, Splits, shown
from kinfold.datasets._fingerprints import Fingerprints, changed, look
from kinfold.datasets._image_files import Files
from kinfold.datasets._names import as_text, brief, counted
from kinfold.datasets._pictures import Pictures
from kinfold.datasets._source import Source
from kinfold.training.run_folder import SPLITS, archive, json_array, json_of

_PRINTS = ("sizes", "times", "hashes")


class Listed(NamedTuple):
    """A listing as it is in a run folder.

    Attributes:
        meta: {"root": ..., "shape": ..., "kept_in": [...], "digests": [...]}.
        arrays: all else, by name.
    """

    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def names(self, split: str) -> tuple[str, ...]:
        return tuple(json_of(self.arrays[f"{split}/names"]))

    def y(self, split: str) -> np.ndarray:
        return self.arrays[f"{split}/y"]

    def files(self, split: str) -> list[str]:
        return json_of(self.arrays[f"{split}/files"])

    def prints(self, name: str) -> Fingerprints:
        return Fingerprints(*(self.arrays[f"{name}/{what}"] for what in _PRINTS))


def write(path: Path, splits: Splits, source: Source | None) -> None:
    """Write the listing of splits of a source; None for drawings, which are drawn again."""
    arrays: dict[str, Any] = {}
    meta: dict[str, Any] = {"shape": list(splits.train.x.shape[1:])}
    for name, split in zip(SPLITS, splits, strict=True):
        arrays[f"{name}/y"] = split.y
        arrays[f"{name}/names"] = json_array(list(split.names))
    opened = image_files(splits)
    if opened is not None:
        meta["root"] = str(opened.root)
        for name, split in zip(SPLITS, splits, strict=True):
            assert isinstance(split.x, Stored)
            rows = split.x.rows
            arrays[f"{name}/files"] = json_array([opened.files[row] for row in rows.tolist()])
            _add(arrays, name, opened.known.take(rows))
    elif source is None:
        meta["digests"] = [_digest(split) for split in splits]
    else:
        meta["kept_in"] = [str(file) for file in source.kept_in]
        meta["total"] = len(source.split)
        prints, bad = look(Path(), meta["kept_in"])
        assert not bad
        _add(arrays, "kept_in", prints)
        for name, split in zip(SPLITS, splits, strict=True):
            assert isinstance(split.x, Stored)
            arrays[f"{name}/rows"] = split.x.rows
    with files.atomic_write(path) as beside, open(beside, "wb") as file:
        np.savez_compressed(file, meta=json_array(meta), **arrays)


def read(path: Path) -> Listed:
    """Read a listing; nothing of the data is opened.

    Raises:
        ValueError: it is damaged.
    """
    with archive(path) as arrays:
        found = {name: arrays[name] for name in arrays.files}
        return Listed(json_of(found.pop("meta")), found)


def images(listed: Listed) -> tuple[Splits, list[str]]:
    """The splits of a listing of image files, and what is to be said of files that have changed.

    Files that were added since are not used. Files that are gone count as unreadable: in training,
    others of their class take their place, and elsewhere they are left out.
    """
    root = Path(listed.meta["root"])
    *size, channels = listed.meta["shape"]
    splits: list[Split] = []
    notes: list[str] = []
    for name in SPLITS:
        names, y, prints = listed.names(name), listed.y(name), listed.prints(name)
        listed_files = listed.files(name)
        openers = Files(root, listed_files, prints)
        reader = Pictures(openers, y, names, (size[0], size[1]), channels, root)
        found: dict[str, list[str]] = {}
        for row, what in changed(root, listed_files, prints):
            found.setdefault(what, []).append(brief(listed_files[row]))
            if what == "gone":
                reader.leave_out({row: "no such file"})
        if len(found.get("gone", ())) == len(y):
            raise ValueError(
                f"No {name} image of this run is in {shown(root)} any more, such as "
                f"{found['gone'][0]}. Put them back to go on with the run."
            )
        notes += [f"{counted(f'{name} images {what}', of)}." for what, of in found.items()]
        texts = tuple(as_text(file) for file in listed_files)
        splits.append(Split(Stored(reader), y, names, texts))
    if notes:
        notes.insert(0, f"{shown(root)} is not as it was when this run began:")
    return Splits(*splits), notes


def rows(listed: Listed, source: Source, data: str) -> tuple[Splits, list[str]]:
    """The splits of a listing of rows of arrays, tables or archives, opened anew as `source`.

    Raises:
        ValueError: a file has lost examples, or holds examples of other labels.
    """
    x = source.split.x
    assert isinstance(x, Stored)
    names = np.array([*source.split.names, ""], dtype=object)
    splits = []
    for name in SPLITS:
        taken, y = listed.arrays[f"{name}/rows"], listed.y(name)
        ours = np.array(listed.names(name), dtype=object)
        beyond = len(taken) and int(taken.max()) >= len(source.split)
        if beyond or (ours[y] != names[source.split.y[taken]]).any():
            raise ValueError(
                f"{shown(data)} has changed since this run began: its examples have other labels, "
                "or are fewer. Put the file back to go on with the run, or begin another run."
            )
        of = source.split.files
        texts = None if of is None else tuple(of[row] for row in taken.tolist())
        splits.append(Split(x.take(taken), y, tuple(ours), texts))
    of_now = [str(file) for file in source.kept_in]
    before = listed.meta["kept_in"]
    notes = []
    what = [
        f"{brief(before[k])} {how}" for k, how in changed(Path(), before, listed.prints("kept_in"))
    ]
    if what:
        notes.append(f"Not as it was when this run began: {', '.join(what)}.")
    added = set(of_now) - set(before)
    if added or len(source.split) > listed.meta["total"]:
        notes.append("Examples that were added since are none of this run's.")
    return Splits(*splits), notes


def drawn(listed: Listed, splits: Splits) -> None:
    """Raise ValueError where drawings made anew are not those of the run."""
    if [_digest(split) for split in splits] != listed.meta["digests"]:
        raise ValueError(
            "The characters drawn here are not those that this run began with: the fonts of "
            "matplotlib are others. Install the version in the run's config.json, or begin again."
        )


def image_files(splits: Sequence[Split]) -> Files | None:
    """The image files of splits that have one reader; None of other data."""
    x = splits[0].x
    pictures = x.reader if isinstance(x, Stored) else None
    found = pictures.openers if isinstance(pictures, Pictures) else None
    return found if isinstance(found, Files) else None


def keep_apart(splits: Splits) -> Splits:
    """Let no example of one split stand in for an unreadable one of another."""
    xs = [split.x for split in splits]
    first = xs[0]
    if isinstance(first, Stored) and all(x.reader is first.reader for x in xs):  # type: ignore[union-attr]
        part = np.full(len(first.reader), len(xs))
        for k, x in enumerate(xs):
            assert isinstance(x, Stored)
            part[x.rows] = k
        first.reader.keep_apart(part)
    return splits


def _add(arrays: dict[str, Any], name: str, prints: Fingerprints) -> None:
    for what in _PRINTS:
        arrays[f"{name}/{what}"] = getattr(prints, what)


def _digest(split: Split) -> str:
    digest = hashlib.blake2b(str((split.x.shape, split.names)).encode(), digest_size=16)
    for array in (np.ascontiguousarray(split.x), split.y):
        digest.update(array.tobytes())
    return digest.hexdigest()
