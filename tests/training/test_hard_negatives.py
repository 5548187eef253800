"""Runs with hard negatives: which examples they embed, and that they go on as unbroken ones."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinfold import training
from kinfold.batches import ClassBalancedIndices, confused_classes
from kinfold.training import evaluation, finishing, run_folder, running
from kinfold.training.commands import Settings, resume, train
from kinfold.training.hard_negatives import sampled
from kinfold.training.progress import Progress
from kinfold.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.fixture(autouse=True)
def quick_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "write_report", lambda path, report: path.write_text(""))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    path = tmp_path_factory.mktemp("data") / "vectors.npz"
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(40), 6)
    x = rng.normal(size=(40, 8))[y] + 0.7 * rng.normal(size=(len(y), 8))
    np.savez(path, x=x.astype("float32"), y=y)
    sizes = {"classes_per_batch": 6, "examples_per_class": 2, "steps_per_epoch": 6, "epochs": 3}
    return Settings(str(path), embedding_size=8, seed=5, hard_negatives=True, **sizes)


@pytest.fixture(scope="module")
def unbroken(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finishing, "write_report", lambda path, report: path.write_text(""))
        train(settings, out)
    return out


def weights(run: Path) -> list[np.ndarray]:
    checkpoint = run_folder.read_checkpoint(RunFolder(run).checkpoint)
    assert checkpoint.epochs == 3
    return [*checkpoint.weights, *checkpoint.optimizer]


def same(run: Path, other: Path) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(weights(run), weights(other), strict=True))


class StopAt(Progress):
    """Stops at the first step of an epoch, counted from 1."""

    def __init__(self, epoch: int) -> None:
        self.left = epoch

    def step(self, step: int, loss: object) -> None:
        if step == 1:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt


@pytest.mark.parametrize("epoch", [2, 3])
def test_a_run_that_was_stopped_ends_as_an_unbroken_one(
    settings: Settings, unbroken: Path, tmp_path: Path, epoch: int
) -> None:
    out = tmp_path / "run"
    with pytest.raises(training.Interrupted):
        train(settings, out, progress=StopAt(epoch))
    resume(out)
    assert same(out, unbroken)


def test_they_change_what_is_trained_from_the_second_epoch_on(
    settings: Settings, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train(dataclasses.replace(settings, hard_negatives=False), out)
    assert not same(out, unbroken)
    losses = [
        run_folder.read_checkpoint(RunFolder(run).checkpoint).history["loss"]
        for run in (out, unbroken)
    ]
    assert losses[0][0] == losses[1][0]
    assert losses[0][1] != losses[1][1]


def test_the_epoch_is_dealt_by_what_the_model_confuses(
    settings: Settings, unbroken: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The batches of each epoch are those of the table of the weights before it."""
    seen: dict[int, np.ndarray] = {}
    expected: dict[int, np.ndarray] = {}
    used = running.HardNegatives
    begin = used.on_epoch_begin

    def watched(self: Any, epoch: int, logs: object = None) -> None:
        begin(self, epoch)
        train_split = self.train
        indices = ClassBalancedIndices(train_split.y, 6, 2, 6, seed=settings.seed)
        if epoch:
            rows = sampled(train_split.y, settings.seed, epoch)  # of every class
            found = evaluation.embed(self.encoder, train_split.x[rows])
            indices.set_confused(confused_classes(found, train_split.y[rows]))
        expected[epoch] = indices.epoch(epoch)
        seen[epoch] = self.batches.indices.epoch(epoch)

    monkeypatch.setattr(used, "on_epoch_begin", watched)
    train(settings, tmp_path / "run")
    assert list(seen) == [0, 1, 2]
    for epoch, rows in seen.items():
        np.testing.assert_array_equal(rows, expected[epoch])


@pytest.mark.once
def test_sampled_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(60), [1] * 20 + [9] * 40))
    rows = sampled(y, 0, 1)
    assert (np.diff(rows) > 0).all()
    assert np.bincount(y[rows]).tolist() == [0] * 20 + [4] * 40
    np.testing.assert_array_equal(rows, sampled(y, 0, 1))
    assert not np.array_equal(rows, sampled(y, 0, 2))
    assert not np.array_equal(rows, sampled(y, 1, 1))
    monkeypatch.setitem(sampled.__globals__, "MOST_ROWS", 130)  # 3 of each class
    assert np.bincount(y[sampled(y, 0, 1)]).tolist() == [0] * 20 + [3] * 40
    monkeypatch.setitem(sampled.__globals__, "MOST_ROWS", 30)  # 2 each of 15 classes
    counts = np.bincount(y[sampled(y, 0, 1)], minlength=60)
    assert sorted(counts)[-16:] == [0] + [2] * 15
