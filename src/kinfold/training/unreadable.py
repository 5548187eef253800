"""Examples that turn out to be unreadable in a run: named once, left out, and remembered."""

from pathlib import Path
from typing import Any

import keras

from kinfold.core import files
from kinfold.core.stored import Stored
from kinfold.datasets import Split, Splits
from kinfold.datasets._names import counted
from kinfold.training.progress import Progress
from kinfold.training.run_folder import RunFolder


class Told(keras.callbacks.Callback):
    """Names at the end of each epoch the examples that have turned out to be unreadable in it."""

    def __init__(self, folder: RunFolder, splits: Splits, progress: Progress) -> None:
        super().__init__()
        self.what = folder, splits, progress

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        tell(*self.what)


def tell(folder: RunFolder, splits: Splits, progress: Progress) -> None:
    """Name the examples that have turned out to be unreadable, once in a run."""
    new = remember(folder.unreadable, splits)
    if new:
        named = [f"{name} ({why})" for name, why in new.items()]
        progress.note(
            f"{counted('Unreadable', named)}. In training others of their class take their place; "
            "in the test they are left out."
        )


def remember(path: Path, splits: Splits) -> dict[str, str]:
    """Write down the examples that could not be read, and why; return what is new."""
    found = {
        name: why
        for split in splits
        if isinstance(split.x, Stored)
        for name, why in ((_name(split, k), why) for k, why in split.x.unreadable.items())
    }
    known = recalled(path)
    new = {name: why for name, why in found.items() if name not in known}
    if new:
        files.write_json(path, {**known, **new})
    return new


def recalled(path: Path) -> dict[str, str]:
    """What `remember` wrote."""
    return dict(files.read_json(path)) if path.exists() else {}


def recall(path: Path, splits: Splits) -> None:
    """Do not try again to read examples that could not be read before."""
    known = recalled(path)
    if not known:
        return
    for split in splits:
        if isinstance(split.x, Stored):
            said = {int(split.x.rows[k]): known.get(_name(split, k)) for k in range(len(split))}
            split.x.reader.leave_out({row: why for row, why in said.items() if why is not None})


def _name(split: Split, k: int) -> str:
    assert isinstance(split.x, Stored)
    return split.files[k] if split.files else f"row {int(split.x.rows[k])}"
