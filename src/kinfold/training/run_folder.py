"""The run folder: files that are whole or not there, and the checkpoint that commits an epoch.

config.json       the settings and the command: written first, so that any run can be resumed;
                  and what the model does to images, once the data is read
listing.npz       which examples, with fingerprints of their files: no copy of the data. Runs of
                  earlier versions hold the examples themselves, in data.npz
unreadable.json   files that turned out to be damaged in training, if any did
start.npz         the weights that training began with, where a file or a download gave some
start.keras       the model that training began with, where the caller gave one
model.keras       the best model so far: of an epoch, or the start, or the raw input
history.csv       a row per epoch
checkpoint.npz    everything that training goes on from; its rename commits the epoch
unfinished.npz    the same in the middle of a long epoch; it counts until that epoch is whole
calibration.npz   embeddings of validation classes, by which decisions are calibrated
index/            what `kinfold index` has made searchable
report.html, metrics.json    the result; metrics.json comes last
tensorboard/      logs for TensorBoard, where the run was asked for them
"""

import contextlib
import csv
import io
import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kinfold.core import files
from kinfold.datasets import Split, Splits

SPLITS = Splits._fields
CHOSEN_BY = "val_map@r"
CANDIDATES = ("raw", "start", "trained")  # for the model that is kept, the simpler first


class RunFolder:
    """The files of one run.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.data = self.path / "data.npz"
        self.listing = self.path / "listing.npz"
        self.unreadable = self.path / "unreadable.json"
        self.start = self.path / "start.npz"
        self.own_model = self.path / "start.keras"
        self.model = self.path / "model.keras"
        self.history = self.path / "history.csv"
        self.checkpoint = self.path / "checkpoint.npz"
        self.unfinished = self.path / "unfinished.npz"
        self.calibration = self.path / "calibration.npz"
        self.report = self.path / "report.html"
        self.metrics = self.path / "metrics.json"
        self.tensorboard = self.path / "tensorboard"

    def remove_partial_files(self) -> None:
        """Remove what a killed process was in the middle of writing."""
        for path in self.path.glob(files.PARTIAL + "*"):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder, so that no second process writes to it; a killed holder lets go."""
        try:
            import fcntl
        except ImportError:  # Windows: two processes on one run are the user's to avoid
            yield
            return
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"Another process is training in {self.path}.") from None
            yield
        finally:
            os.close(descriptor)


def write_history(path: Path, history: dict[str, list[float]]) -> None:
    """Write the columns of a history as a CSV file, a row per epoch, numbers to the last bit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(history)
    writer.writerows(zip(*history.values(), strict=True))
    files.write_text(path, text.getvalue())


def read_splits(path: Path) -> Splits:
    """Read the examples that a run of an earlier version kept."""
    with archive(path) as arrays:
        return Splits(*(_read_split(arrays, name) for name in SPLITS))


def _read_split(arrays: Any, name: str) -> Split:
    files = f"{name}/files"  # not where examples have no names
    return Split(
        arrays[f"{name}/x"],
        arrays[f"{name}/y"],
        tuple(json_of(arrays[f"{name}/names"])),
        tuple(json_of(arrays[files])) if files in arrays.files else None,
    )


def write_weights(path: Path, weights: list[np.ndarray]) -> None:
    """Write the variables of a model."""
    with files.atomic_write(path) as beside, open(beside, "wb") as file:
        np.savez(file, **_numbered("weights", weights))


def read_weights(path: Path) -> list[np.ndarray]:
    """Read what `write_weights` wrote."""
    with archive(path) as arrays:
        return _list_of("weights", arrays)


def _numbered(name: str, arrays: list[np.ndarray]) -> dict[str, Any]:
    return {f"{name}/{i:05d}": array for i, array in enumerate(arrays)}


def _list_of(name: str, arrays: Any) -> list[np.ndarray]:
    return [arrays[key] for key in sorted(arrays.files) if key.startswith(name + "/")]


@dataclass
class Checkpoint:
    """Everything that training goes on from after a whole epoch.

    Attributes:
        history: columns by name, a value per epoch.
        weights: the variables of the model that trains, with the states of its random layers and
            of the augmentation.
        optimizer: the variables of the optimizer, the step counter among them.
        best_epoch: the best epoch, counted from 1; 0 before the first.
        best_weights: the variables of the model after it.
        collapse: what was said when embeddings collapsed, or "".
        seconds: spent in training, over all the processes that took part.
        baseline: by "raw" and "start" the metrics of the raw input and of the network before
            training, by column of the history; {} in runs from before these were measured.
    """

    history: dict[str, list[float]] = field(default_factory=lambda: {"epoch": []})
    weights: list[np.ndarray] = field(default_factory=list)
    optimizer: list[np.ndarray] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: list[np.ndarray] = field(default_factory=list)
    collapse: str = ""
    seconds: float = 0.0
    baseline: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Whole epochs done."""
        return len(self.history["epoch"])

    @property
    def scores(self) -> dict[str, float]:
        """The metric that chooses, of each candidate: "raw", "start", "trained"."""
        values = {name: row[CHOSEN_BY] for name, row in self.baseline.items()}
        if self.epochs:
            values["trained"] = self.history[CHOSEN_BY][self.best_epoch - 1]
        return {name: values[name] for name in CANDIDATES if name in values}

    @property
    def best(self) -> str:
        """The candidate that is kept: of equal ones the simpler."""
        scores = self.scores
        return max(scores, key=lambda name: scores[name]) if scores else "trained"


_ARRAYS = ("weights", "optimizer", "best_weights")
_META = ("history", "best_epoch", "collapse", "seconds", "baseline")


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; its rename is what commits the epoch."""
    meta = {name: getattr(checkpoint, name) for name in _META}
    arrays: dict[str, Any] = {}
    for name in _ARRAYS:
        arrays |= _numbered(name, getattr(checkpoint, name))
    with files.atomic_write(path) as beside, open(beside, "wb") as file:
        np.savez(file, meta=json_array(meta), **arrays)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the last whole epoch; a fresh `Checkpoint` where there is none yet."""
    if not path.exists():
        return Checkpoint()
    with archive(path) as arrays:
        lists: dict[str, Any] = {name: _list_of(name, arrays) for name in _ARRAYS}
        meta = json_of(arrays["meta"])
    if not _is_meta(meta):
        raise ValueError(
            f"{path} is damaged, or of another version of Kinfold: its records are not those of a "
            "checkpoint. Use the version in config.json, or begin again in another folder."
        )
    return Checkpoint(**meta, **lists)


@dataclass
class Unfinished:
    """Everything that training goes on from in the middle of an epoch.

    Attributes:
        epoch: whole epochs before it.
        batch: batches of it that are done.
        weights: as in a `Checkpoint`.
        optimizer: as in a `Checkpoint`.
        metrics: the variables of the metrics, such as the sum of the losses so far.
        generator: the state of PyTorch's own generator; empty on other backends.
        confused: the table of confused classes that the epoch is dealt by; [] without one.
        seconds: spent in training.
        baseline: as in a `Checkpoint`.
    """

    epoch: int
    batch: int
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    metrics: list[np.ndarray]
    generator: list[np.ndarray]
    confused: list[np.ndarray]
    seconds: float
    baseline: dict[str, dict[str, float]]


_OF_UNFINISHED = ("weights", "optimizer", "metrics", "generator", "confused")


def write_unfinished(path: Path, state: Unfinished) -> None:
    """Write how far an epoch has come."""
    meta = {name: getattr(state, name) for name in ("epoch", "batch", "seconds", "baseline")}
    arrays: dict[str, Any] = {}
    for name in _OF_UNFINISHED:
        arrays |= _numbered(name, getattr(state, name))
    with files.atomic_write(path) as beside, open(beside, "wb") as file:
        np.savez(file, meta=json_array(meta), **arrays)


def read_unfinished(path: Path, epochs: int) -> Unfinished | None:
    """Read how far the epoch after so many has come; None where nothing was written in it."""
    if not path.exists():
        return None
    with archive(path) as arrays:
        meta = json_of(arrays["meta"])
        if meta["epoch"] != epochs:
            return None  # of an epoch that is whole by now
        lists: dict[str, Any] = {name: _list_of(name, arrays) for name in _OF_UNFINISHED}
        return Unfinished(**meta, **lists)


def _is_meta(meta: Any) -> bool:
    """Whether the records of a checkpoint fit one another; those of older runs lack the last."""
    try:
        history, baseline = meta["history"], meta.get("baseline", {})
        lengths = {len(column) for column in history.values()}
        numbers = [*(v for column in history.values() for v in column), meta["seconds"]]
        numbers += [v for row in baseline.values() for v in row.values()]
        return (
            {*meta, "baseline"} == set(_META)
            and isinstance(meta["collapse"], str)
            and all(isinstance(v, int | float) for v in numbers)
            and lengths == {len(history["epoch"])}
            and all(CHOSEN_BY in columns for columns in (history, *baseline.values()))
            and set(baseline) <= {"raw", "start"}
            and meta["best_epoch"] in range(1, len(history["epoch"]) + 1)
        )
    except (TypeError, KeyError, AttributeError):
        return False


@contextlib.contextmanager
def archive(path: Path) -> Iterator[Any]:
    try:
        # Opened here: NumPy leaves the file open where it turns out to be no archive.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            yield arrays
    except (zipfile.BadZipFile, KeyError, EOFError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged and cannot be read: {error}.") from error


# Text goes in as bytes: NumPy's own strings lose trailing NULs and take 4 bytes a letter.
def json_array(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode("utf-8"), np.uint8)


def json_of(array: np.ndarray) -> Any:
    return json.loads(array.tobytes().decode("utf-8"))
