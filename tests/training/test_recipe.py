"""What a run chooses by its data, says, and keeps."""

import json
from pathlib import Path

import numpy as np
import pytest

from kinfold import training
from kinfold.datasets import Split
from kinfold.training import recipe
from kinfold.training.progress import Progress
from kinfold.training.settings import Settings

pytestmark = pytest.mark.once


def split(classes: int, each: int, *shape: int) -> Split:
    y = np.repeat(np.arange(classes, dtype="int32"), each)
    names = tuple(str(k) for k in range(classes))
    return Split(np.zeros((len(y), *shape), "uint8" if len(shape) == 3 else "float32"), y, names)


@pytest.mark.parametrize(
    ("data", "batch", "steps"),
    [
        (split(100, 10, 4, 4, 3), (32, 4), 50),  # 1,000 examples are 8 batches
        (split(6, 100, 4, 4, 1), (6, 20), 50),  # 21 would be odd
        (split(2, 500, 4, 4, 1), (2, 32), 50),  # no more than 32
        (split(6, 7, 5), (6, 6), 50),  # no more than a class has
        (split(6, 2, 5), (6, 4), 50),  # those of a small class are drawn again
        (split(3000, 5, 1), (32, 4), 118),  # once through the data
        (split(30_000, 5, 1), (32, 4), 500),  # a long epoch is cut
    ],
)
def test_the_batch_and_the_epoch_follow_from_the_data(
    data: Split, batch: tuple[int, int], steps: int
) -> None:
    full, said = recipe.chosen(Settings("data"), data)
    assert (full.classes_per_batch, full.examples_per_class) == batch
    assert full.steps_per_epoch == steps
    assert full.augment == ("light" if data.x.ndim == 4 else "none")
    assert f"batches of {batch[0]} classes x {batch[1]} examples, {steps} steps per epoch" in said
    assert ("light augmentation" in said) == (data.x.ndim == 4)
    assert recipe.chosen(full, data) == (full, said)


def test_what_the_user_says_is_taken() -> None:
    given = Settings(
        "data", classes_per_batch=3, examples_per_class=2, steps_per_epoch=7, augment="none"
    )
    full, said = recipe.chosen(given, split(100, 10, 4, 4, 3))
    assert full == given
    assert "augmentation" not in said
    assert recipe.chosen(Settings("data"), split(100, 10, 4, 4, 3), True)[0].augment == "none"


class Notes(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def test_a_run_says_what_it_chose_and_keeps_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(12), 6)
    np.savez(tmp_path / "a.npz", x=rng.normal(size=(72, 4)).astype("float32"), y=y)
    notes = Notes()
    training.train(Settings(str(tmp_path / "a.npz"), epochs=1), tmp_path / "run", progress=notes)
    (said,) = (text for text in notes.said if text.startswith("The run takes"))
    kept = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))["settings"]
    classes = kept["classes_per_batch"]
    assert (kept["examples_per_class"], kept["steps_per_epoch"]) == (6, 50)
    assert said == (
        f"The run takes batches of {classes} classes x 6 examples, 50 steps per epoch, 50 times "
        "through the data and a learning rate of up to 0.01."
    )
    notes.said.clear()
    training.resume(tmp_path / "run", epochs=2, progress=notes)
    assert not any(text.startswith("The run takes") for text in notes.said)
    assert json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))["settings"] == {
        **kept,
        "epochs": 2,
    }
