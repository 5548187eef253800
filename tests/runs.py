"""What tests of runs share: small data, settings, ways to stop a run, what must be the same."""

import dataclasses
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
from PIL import Image

from kinfold import trained
from kinfold.core import files
from kinfold.datasets import Splits
from kinfold.training import evaluation, records, run_folder, sources
from kinfold.training.checkpoints import Validation
from kinfold.training.commands import Settings, train
from kinfold.training.progress import Progress
from kinfold.training.run_folder import RunFolder

# Of the photos: classes, pictures of each, pixels a side.
CLASSES, EACH, SIDE = 24, 6, 16
# What the raw input and the start find, so that an epoch is kept: colours are found without it.
NOTHING = {row: {"val_recall@1": 0.0, "val_map@r": 0.0} for row in ("raw", "start")}


def write_photos(folder: Path) -> Path:
    """A folder of classes that differ by colour and by where a stripe is."""
    rng = np.random.default_rng(0)
    for k in range(CLASSES):
        colour, row = rng.uniform(30, 220, 3), rng.integers(2, SIDE - 4)
        (folder / f"class {k}").mkdir(parents=True)
        for n in range(EACH):
            x = np.tile(colour, (SIDE, SIDE, 1)) + rng.normal(0, 18, (SIDE, SIDE, 3))
            x[row : row + 3] = 255 - colour
            pixels = np.clip(x, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class {k}" / f"{n}.png")
    return folder


def run_on_photos(photos: Path, out: Path) -> Path:
    """A short run on the photos, whose network is kept."""
    settings = Settings(
        str(photos), image_size=SIDE, embedding_size=8, classes_per_batch=6, examples_per_class=4,
        steps_per_epoch=10, epochs=3, seed=1,
    )  # fmt: skip
    with mock.patch.object(Validation, "baseline", return_value=NOTHING):
        train(settings, out)
    assert files.read_json(out / "metrics.json")["best"] == "trained"
    return out


def indexed_run(photos: Path, out: Path) -> Path:
    """A run on the photos, with an index of them."""
    run_on_photos(photos, out)
    trained.index(out, str(photos))
    return out


def run_on_vectors(data: Path, out: Path) -> tuple[np.ndarray, np.ndarray]:
    """A short run on vectors of 20 classes, which are written to `data`; their x and y."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(20), 6)
    x = (rng.normal(size=(20, 8))[y] + 0.3 * rng.normal(size=(120, 8))).astype("float32")
    np.savez(data, x=x, y=y)
    settings = Settings(
        str(data), embedding_size=4, classes_per_batch=4, examples_per_class=3,
        steps_per_epoch=5, epochs=1,
    )  # fmt: skip
    train(settings, out)
    return x, y


def write_vectors(
    path: Path, classes: int = 12, examples: int = 6, seed: int = 0, noise: float = 0.3
) -> Path:
    """Seven values tell the classes; the last, large and random if there is noise, hides them."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), examples)
    x = noise * rng.normal(size=(len(y), 8))
    x[:, :7] += rng.normal(size=(classes, 7))[y]
    x[:, 7] = 27 * noise * rng.normal(size=len(y))
    np.savez(path, x=x.astype("float32"), y=y)
    return path


def settings_for(path: Path) -> Settings:
    return Settings(
        str(path),
        embedding_size=8,
        classes_per_batch=3,
        examples_per_class=2,
        steps_per_epoch=10,
        epochs=3,
        seed=5,
    )


class StopAt(Progress):
    """Raises at a step of an epoch, both counted from 1, of this process."""

    def __init__(self, epoch: int, step: int, error: BaseException) -> None:
        self.at, self.error = (epoch, step), error
        self.done = 0
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, step: int, loss: Callable[[], float]) -> None:
        if (self.done + 1, step) == self.at:
            raise self.error

    def epoch(self, row: dict[str, float], best: bool) -> None:
        self.done += 1


class Crash(BaseException):
    """Stops a process as no `except Exception` would hinder."""


def contents(run: Path) -> dict[str, Any]:
    """All that must be the same, bit for bit."""
    folder = RunFolder(run)
    checkpoint = dataclasses.asdict(run_folder.read_checkpoint(folder.checkpoint))
    del checkpoint["seconds"]
    metrics = files.read_json(folder.metrics)
    del metrics["seconds"]
    model = keras.saving.load_model(folder.model)
    return {
        "checkpoint": checkpoint,
        "metrics": metrics,
        "history": folder.history.read_bytes(),
        "model": evaluation.as_numpy(model.variables),
        "files": {path.name for path in run.iterdir()},
    }


def splits_of(run: Path) -> Splits:
    """What a run trains, chooses and tests on, read."""
    folder = RunFolder(run)
    found = sources.again(folder, records.read_config(folder).settings)[0]
    return Splits(*(dataclasses.replace(split, x=np.asarray(split.x)) for split in found))


def damage(path: Path) -> None:
    """Spoil the pixels of a PNG, whose header and end stay whole."""
    whole = bytearray(path.read_bytes())
    start = whole.index(b"IDAT") + 4
    length = int.from_bytes(whole[start - 8 : start - 4], "big")
    data = bytes([255] * length)
    whole[start : start + length] = data
    whole[start + length : start + length + 4] = zlib.crc32(b"IDAT" + data).to_bytes(4, "big")
    path.write_bytes(bytes(whole))
