"""Runs: what they write, and that nothing that stops them changes what comes out."""

import contextlib
import csv
import dataclasses
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from kinfold import training
from kinfold.core import files
from kinfold.datasets import Split
from kinfold.training import (
    checkpoints,
    evaluation,
    finishing,
    listing,
    measuring,
    raw_input,
    run_folder,
    sources,
    verdicts,
)
from kinfold.training.commands import Settings, resume, train
from kinfold.training.progress import Progress
from kinfold.training.run_folder import Checkpoint, RunFolder
from runs import Crash, StopAt, contents, settings_for, splits_of, write_vectors

pytestmark = pytest.mark.usefixtures("compile_once")

FILES = {
    "config.json",
    "listing.npz",
    "calibration.npz",
    "checkpoint.npz",
    "model.keras",
    "history.csv",
    "metrics.json",
    "report.html",
}


def write_images(path: Path, scale: float | None = None) -> Path:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(12), 6)
    x = rng.integers(0, 200, (12, 8, 8, 1))[y] + rng.integers(0, 56, (len(y), 8, 8, 1))
    np.savez(path, x=x.astype("uint8") if scale is None else x * scale, y=y)
    return path


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vectors(tmp_path_factory.mktemp("data") / "vectors.npz")


@pytest.fixture(scope="module")
def unbroken(vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    train(settings_for(vectors), out, command="kinfold train vectors.npz")
    return out


@pytest.fixture(autouse=True)
def quick_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the runs of a test the drawing of a report; `unbroken` has a real one."""
    for module in (finishing, measuring):
        monkeypatch.setattr(
            module, "write_report", lambda path, report: path.write_text(repr(report), "utf-8")
        )


def assert_same(run: Path, other: Path) -> None:
    np.testing.assert_equal(contents(run), contents(other))


def test_a_run_writes_every_file(unbroken: Path, vectors: Path) -> None:
    assert {path.name for path in unbroken.iterdir()} == FILES

    metrics = json.loads((unbroken / "metrics.json").read_text("utf-8"))
    assert metrics["command"] == "kinfold train vectors.npz"
    assert metrics["versions"]["keras"] == keras.__version__
    assert metrics["versions"].keys() >= {"kinfold", "numpy", "python", keras.backend.backend()}
    assert metrics["seed"] == 5
    assert metrics["finished"] is True
    assert metrics["epochs"] == 3
    assert metrics["seconds"].keys() == {"data", "training", "evaluation"}
    assert metrics["counts"] == {
        "train": {"classes": 6, "examples": 36},
        "validation": {"classes": 2, "examples": 12},
        "test": {"classes": 4, "examples": 24},
    }
    for row in ("raw", "untrained", "trained", "gain"):
        assert metrics[row].keys() == {"recall@1", "recall@10", "map@r", "mrr"}

    with open(unbroken / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert rows[0].keys() == {"epoch", "loss", "val_recall@1", "val_map@r"}
    best = max(range(3), key=lambda i: float(rows[i]["val_map@r"]))
    assert metrics["best_epoch"] == best + 1
    assert metrics["best"] == "trained"
    assert metrics["validation"]["trained"]["val_map@r"] == float(rows[best]["val_map@r"])
    assert metrics["validation"]["raw"]["val_map@r"] < float(rows[best]["val_map@r"])
    assert "<!doctype html>" in (unbroken / "report.html").read_text("utf-8")


def test_the_table_is_that_of_the_model_in_the_folder(unbroken: Path) -> None:
    test = splits_of(unbroken)[2]
    model = keras.saving.load_model(unbroken / "model.keras")
    metrics = json.loads((unbroken / "metrics.json").read_text("utf-8"))
    x = test.x / np.linalg.norm(test.x, axis=1, keepdims=True)
    for row, vectors in (("trained", model.predict(test.x, verbose=0)), ("raw", x)):
        similarity = vectors @ vectors.T
        np.fill_diagonal(similarity, -2)
        hits = test.y[similarity.argmax(axis=1)] == test.y
        assert metrics[row]["recall@1"] == pytest.approx(hits.mean(), abs=1e-6)


@pytest.mark.once
def test_train_validation_and_test_share_no_class(unbroken: Path) -> None:
    names = [set(split.names) for split in splits_of(unbroken)]
    assert set.union(*names) == {str(k) for k in range(12)}
    assert sum(map(len, names)) == 12


def test_another_seed_gives_another_model_on_the_same_test_classes(
    unbroken: Path, vectors: Path, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings_for(vectors), seed=6, epochs=1)
    train(settings, tmp_path / "run")
    ours, theirs = (splits_of(run)[2] for run in (tmp_path / "run", unbroken))
    assert ours.names == theirs.names
    np.testing.assert_array_equal(ours.x, theirs.x)
    first, other = (
        run_folder.read_checkpoint(run / "checkpoint.npz").history["loss"][0]
        for run in (tmp_path / "run", unbroken)
    )
    assert first != other


@contextlib.contextmanager
def crash_at_rename(name: str, occasion: int) -> Iterator[None]:
    """Stop the process as it is about to rename a file into place."""
    replace, seen = os.replace, []

    def crash(source: Path, target: Path) -> None:
        seen.append(Path(target).name)
        if seen.count(name) == occasion:
            raise Crash
        replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", crash)
        yield


@contextlib.contextmanager
def full_disk_at_checkpoint(occasion: int) -> Iterator[None]:
    """Let the disk be full in the middle of a checkpoint."""
    savez, seen = np.savez, []

    def full(file: Any, **arrays: Any) -> None:
        seen.extend(name for name in arrays if name == "meta")
        if len(seen) == occasion:
            file.write(b"half of")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        savez(file, **arrays)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "savez", full)
        yield


def test_a_run_that_is_stopped_again_and_again_ends_as_an_unbroken_one(
    vectors: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings, command = settings_for(vectors), "kinfold train vectors.npz"

    def epochs() -> int:
        assert not list(out.glob(".partial-*"))
        (out / ".partial-model.keras").write_bytes(b"what a killed process leaves behind")
        return run_folder.read_checkpoint(out / "checkpoint.npz").epochs

    with pytest.raises(Crash):
        train(settings, out, command, StopAt(1, 2, Crash()))
    assert epochs() == 0
    with crash_at_rename("model.keras", 1), pytest.raises(Crash):
        resume(out)
    assert epochs() == 0
    with (
        crash_at_rename("checkpoint.npz", 1),
        pytest.raises(Crash),
    ):  # model.keras and history.csv are newer than it
        resume(out)
    assert epochs() == 0
    full = r"checkpoint.npz: No space left on device. Epoch 1 is whole"
    with full_disk_at_checkpoint(2), pytest.raises(training.WriteError, match=full):
        resume(out)
    assert epochs() == 1
    with pytest.raises(Crash):
        resume(out, progress=StopAt(1, 3, Crash()))
    assert epochs() == 1
    with crash_at_rename("history.csv", 2), pytest.raises(Crash):
        resume(out)
    assert epochs() == 1
    with crash_at_rename("metrics.json", 1), pytest.raises(Crash):
        resume(out)
    assert epochs() == 3
    resume(out)
    assert_same(out, unbroken)


def test_a_run_goes_on_with_its_own_examples_or_says_what_has_become_of_them(
    vectors: Path, unbroken: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copy(vectors, tmp_path / "vectors.npz"))
    out = tmp_path / "run"
    with pytest.raises(Crash):
        train(settings_for(data), out, "kinfold train vectors.npz", StopAt(2, 1, Crash()))
    whole, content = data.read_bytes(), dict(np.load(data))

    # Rows that were added are none of the run's, even of classes that it knows.
    more = {name: np.concatenate([array, array[:5]]) for name, array in content.items()}
    np.savez(data, **more)
    progress = StopAt(2, 2, Crash())
    with pytest.raises(Crash):
        resume(out, progress=progress)
    assert any("Examples that were added since" in note for note in progress.notes)

    np.savez(data, x=content["x"], y=content["y"][::-1])
    with pytest.raises(ValueError, match=r"vectors.npz has changed since this run began"):
        resume(out)
    np.savez(data, x=content["x"][:-9], y=content["y"][:-9])
    with pytest.raises(ValueError, match=r"vectors.npz has changed since this run began"):
        resume(out)
    data.unlink()
    with pytest.raises(FileNotFoundError, match=r"There is no .*vectors.npz"):
        resume(out)

    data.write_bytes(whole)
    progress = StopAt(0, 0, Crash())
    resume(out, progress=progress)
    assert not any("Not as it was" in note for note in progress.notes)
    ours, theirs = (contents(run)["checkpoint"] for run in (out, unbroken))
    np.testing.assert_equal(ours, theirs)
    data.unlink()
    resume(out)  # finished: its data is not asked for


def test_a_run_of_an_earlier_version_goes_on_from_the_examples_in_it(
    vectors: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.raises(Crash):
        train(settings_for(vectors), out, progress=StopAt(2, 1, Crash()))
    arrays: dict[str, Any] = {}
    for name, split in splits_of(out)._asdict().items():
        arrays |= {f"{name}/x": split.x, f"{name}/y": split.y}
        arrays[f"{name}/names"] = run_folder.json_array(list(split.names))
    np.savez(out / "data.npz", **arrays)
    (out / "listing.npz").unlink()
    resume(out)
    ours, theirs = (contents(run)["checkpoint"] for run in (out, unbroken))
    np.testing.assert_equal(ours, theirs)


def test_ctrl_c_keeps_the_best_model_and_the_run_can_go_on(
    vectors: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    progress = StopAt(3, 1, KeyboardInterrupt())
    with pytest.raises(training.Interrupted):
        train(settings_for(vectors), out, "kinfold train vectors.npz", progress)
    assert {path.name for path in out.iterdir()} == FILES
    checkpoint = run_folder.read_checkpoint(out / "checkpoint.npz")
    assert checkpoint.epochs == 2
    model = keras.saving.load_model(out / "model.keras")
    np.testing.assert_equal(evaluation.as_numpy(model.variables), checkpoint.best_weights)
    metrics = files.read_json(out / "metrics.json")
    assert metrics["finished"] is False
    assert metrics["epochs"] == 2
    said = "\n".join(progress.notes)
    assert "Interrupted. Epoch 2 is whole" in said
    assert f"of epoch {checkpoint.best_epoch}" in said
    assert str(out / "model.keras") in said

    resume(out)
    assert_same(out, unbroken)


def test_ctrl_c_in_the_first_epoch_says_that_nothing_is_kept(vectors: Path, tmp_path: Path) -> None:
    progress = StopAt(1, 2, KeyboardInterrupt())
    with pytest.raises(training.Interrupted):
        train(settings_for(vectors), tmp_path / "run", progress=progress)
    assert progress.notes[-1] == "Interrupted. No epoch is whole yet."
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "listing.npz"}


# A child for each kill, of one parent that has done the imports and nothing else.
KILLS = """
import os, signal, sys
import numpy as np
from kinfold import training
from kinfold.training import run_folder
from kinfold.training.progress import Progress
from kinfold.training.report import page

out, settings = sys.argv[1], eval("training." + sys.argv[2])

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

class Epoch(Progress):
    done = 0
    def step(self, step, loss):
        if (self.done, step) == (1, 4):
            die()
    def epoch(self, row, best):
        self.done += 1

def in_an_epoch():
    training.train(settings, out, "kinfold train vectors.npz", Epoch())

def in_a_checkpoint():
    savez = np.savez
    def half(file, **arrays):
        if "meta" in arrays:
            file.write(b"half of")
            file.flush()
            die()
        savez(file, **arrays)
    np.savez = half
    training.resume(out)

def in_the_report():
    page.render = die
    training.resume(out)

for kill in in_an_epoch, in_a_checkpoint, in_the_report:
    child = os.fork()
    if not child:
        kill()
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    done = run_folder.read_checkpoint(run_folder.RunFolder(out).checkpoint).epochs
    left = [name for name in os.listdir(out) if name.startswith(".")]
    print(kill.__name__, ended, done, len(left), "metrics.json" in os.listdir(out), flush=True)
"""


@pytest.mark.once
def test_a_process_killed_in_an_epoch_a_checkpoint_and_the_report_loses_nothing(
    vectors: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", KILLS, out, repr(settings_for(vectors))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "in_an_epoch -9 1 0 False",
        "in_a_checkpoint -9 1 1 False",
        "in_the_report -9 3 0 False",
    ], done.stderr
    resume(out)
    assert_same(out, unbroken)


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes: the operating system refuses, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.once
def test_files_that_cannot_be_written_whole_are_named_and_lose_nothing(
    vectors: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    sizes = {path.name: path.stat().st_size for path in unbroken.iterdir()}
    assert sizes["listing.npz"] < sizes["model.keras"]
    with (
        room_for(sizes["listing.npz"] // 2),
        pytest.raises(files.WriteError, match=r"listing.npz: File"),
    ):
        train(settings_for(vectors), out, "kinfold train vectors.npz")
    with room_for(sizes["model.keras"] // 2), pytest.raises(files.WriteError) as raised:
        resume(out)
    assert re.fullmatch(
        r"Could not write .*model.keras: .*\. No epoch is whole yet\.", str(raised.value)
    )
    resume(out)
    assert_same(out, unbroken)


@pytest.mark.once
def test_faults_in_a_folder_of_images_are_named_and_the_rest_is_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    modes = ("RGB", "CMYK", "P", "I;16", "RGBA", "LA")
    for k in range(12):
        (folder / f"class {k:02}").mkdir(parents=True)
        for i, mode in enumerate(modes):
            grey = np.clip(20 * k + rng.integers(0, 20, (12, 12)), 0, 255).astype("uint8")
            image = (
                Image.fromarray(grey.astype("uint16") * 257)
                if mode == "I;16"
                else Image.fromarray(grey).convert("RGB").convert(mode)
                if mode != "LA"
                else Image.fromarray(grey).convert("LA")
            )
            image.save(folder / f"class {k:02}" / f"{i}.{'tif' if mode == 'CMYK' else 'png'}")
    (folder / "nothing in it").mkdir()
    whole = (folder / "class 03" / "0.png").read_bytes()
    (folder / "class 03" / "0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="left out"):
        trained_on = sources.load_splits(str(folder), 8)[0].names
    alone = next(name for name in trained_on if name != "class 03")
    for path in sorted((folder / alone).iterdir())[1:]:
        path.unlink()
    settings = dataclasses.replace(
        settings_for(folder), epochs=1, steps_per_epoch=2, classes_per_batch=None, image_size=8
    )
    left_out = r"unreadable \(1\): class 03/0.png .*; classes without .* \(1\): nothing in it"
    with (
        pytest.warns(UserWarning, match=left_out),
        pytest.warns(UserWarning, match=r"1 of \d classes have one example and are left out"),
    ):
        train(settings, tmp_path / "run")
    splits = splits_of(tmp_path / "run")
    assert sum(map(len, splits)) == 12 * len(modes) - 1 - (len(modes) - 1)


@pytest.mark.once
def test_a_finished_run_says_so_and_can_be_made_longer(unbroken: Path, tmp_path: Path) -> None:
    out = shutil.copytree(unbroken, tmp_path / "run")
    progress = StopAt(0, 0, Crash())
    table = resume(out, progress=progress)
    assert table["trained"] == files.read_json(out / "metrics.json")["trained"]
    assert "is finished: 3 of 3 epochs" in progress.notes[0]
    assert_same(out, unbroken)

    with pytest.raises(ValueError, match=r"3 epochs, which can be raised but not lowered.*2"):
        resume(out, epochs=2)
    resume(out, epochs=4)
    assert files.read_json(out / "metrics.json")["epochs"] == 4
    assert files.read_json(out / "config.json")["settings"]["epochs"] == 4
    longer = run_folder.read_checkpoint(out / "checkpoint.npz")
    before = run_folder.read_checkpoint(unbroken / "checkpoint.npz")
    assert longer.history["loss"][:3] == before.history["loss"]
    assert longer.epochs == 4


def test_a_run_goes_on_only_on_its_own_backend(unbroken: Path, tmp_path: Path) -> None:
    out = shutil.copytree(unbroken, tmp_path / "run")
    config = files.read_json(out / "config.json") | {"backend": "other"}
    files.write_json(out / "config.json", config)
    with pytest.raises(ValueError, match=r"trains on other.*KERAS_BACKEND=other"):
        resume(out)


def test_evaluate_measures_the_model_on_other_data(unbroken: Path, tmp_path: Path) -> None:
    other = write_vectors(tmp_path / "other.npz", classes=5, seed=1)
    progress = StopAt(0, 0, Crash())
    table = training.evaluate(unbroken, str(other), progress)
    assert table.keys() == {"raw", "untrained", "trained"}
    said = "\n".join(progress.notes)
    assert "On 30 vectors of 5 classes" in said
    assert f"{table['trained']['map@r']:.4f}" in said

    # Two of its classes, and one example of each; what is printed is also written.
    few = tmp_path / "few.npz"
    x, y = (np.load(other)[name] for name in "xy")
    np.savez(few, x=x[[0, 6]], y=y[[0, 6]] * 3)  # classes 0 and 3
    table = training.evaluate(
        unbroken, str(other), progress, gallery=str(few), json_path=tmp_path / "table.json"
    )
    written = json.loads((tmp_path / "table.json").read_text("utf-8"))
    assert {row: written[row] for row in table} == table
    assert written["said"] == progress.notes[-1].splitlines()
    assert written["counts"] == {
        "queries": {"classes": 5, "examples": 30},
        "gallery": {"classes": 2, "examples": 2},
    }
    assert "Their examples are no queries: 18." in progress.notes[-1]
    model = keras.saving.load_model(unbroken / "model.keras")
    vectors, searched = (model.predict(part, verbose=0) for part in (x, x[[0, 6]]))
    nearest = np.array([0, 3])[(vectors @ searched.T).argmax(axis=1)]
    hits = (nearest == y)[np.isin(y, (0, 3))]
    assert table["trained"]["recall@1"] == pytest.approx(hits.mean())

    training.evaluate(unbroken, str(other), report_path=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text("utf-8").startswith("Report(title='other'")
    for more, error, message in (
        ({"gallery": str(few), "report_path": "page.html"}, ValueError, "leave out the report"),
        ({"gallery": str(other)}, ValueError, "each example would find itself"),
        ({"json_path": tmp_path / "no" / "x.json"}, FileNotFoundError, "There is no folder"),
    ):
        with pytest.raises(error, match=message):
            training.evaluate(unbroken, str(other), **more)

    with pytest.raises(ValueError, match=r"images of 8 x 8 x 1; the model takes vectors of 8"):
        training.evaluate(unbroken, str(write_images(tmp_path / "images.npz")))
    with pytest.raises(FileNotFoundError, match="There is no run in"):
        training.evaluate(tmp_path, str(other))


def test_models_load_in_plain_python_also_compiled_with_a_loss_of_kinfold(
    unbroken: Path, tmp_path: Path
) -> None:
    from kinfold.losses import CircleLoss

    model = keras.saving.load_model(unbroken / "model.keras")
    model.compile("sgd", loss=CircleLoss(gamma=20.0))
    model.save(tmp_path / "compiled.keras")
    code = (
        "import sys, keras\n"
        "plain = keras.saving.load_model(sys.argv[1])\n"
        "assert 'kinfold' not in sys.modules\n"
        "import kinfold\n"
        "compiled = keras.saving.load_model(sys.argv[2])\n"
        "print(plain.output_shape, compiled.loss.gamma)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, unbroken / "model.keras", tmp_path / "compiled.keras"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "(None, 8) 20.0", done.stderr


@pytest.mark.once
def test_two_processes_cannot_train_in_one_folder(unbroken: Path, tmp_path: Path) -> None:
    out = shutil.copytree(unbroken, tmp_path / "run")
    with (
        RunFolder(out).lock(),
        pytest.raises(ValueError, match="Another process is training in"),
    ):
        resume(out)


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "cirle"}, "Unknown loss. Did you mean circle?"),
        ({"backbone": "small"}, "vectors, which take no backbone"),
        ({"image_size": 96}, "Images of 96 x 96 need a backbone: 'small'"),
        ({"image_size": 64}, "An image size is for image files and glyphs"),
        ({"classes_per_batch": 50}, "classes_per_batch is 50, but 6 of the 6 classes"),
    ],
)
def test_settings_that_do_not_do_are_refused_and_leave_no_folder(
    change: dict[str, Any], message: str, vectors: Path, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings_for(vectors), **change)
    with pytest.raises(ValueError, match=message):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.once
def test_data_that_does_not_do_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    few = write_vectors(tmp_path / "few.npz", classes=5)
    single = write_vectors(tmp_path / "single.npz", examples=1)
    text = tmp_path / "notes.txt"
    text.write_text("text")
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"PK no zip")
    for data, message in (
        (tmp_path / "nowhere", "There is no .*nowhere"),
        (text, "is a file of a kind that is not read"),
        (bad, "bad.npz is not an .npz file"),
        (few, "holds 5 classes. Training needs at least 6"),
        (single, "No training class of .* has two examples"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            train(settings_for(data), tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.once
def test_an_existing_run_is_not_overwritten_and_nothing_is_not_resumed(
    unbroken: Path, vectors: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"holds a run. Go on with it.*--resume .*with --out"):
        train(settings_for(vectors), unbroken)
    (tmp_path / "file").write_text("text")
    with pytest.raises(ValueError, match=r"is not empty, and holds no run: name another folder"):
        train(settings_for(vectors), tmp_path)
    with pytest.raises(ValueError, match=r"file is a file: name a folder with --out"):
        train(settings_for(vectors), tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="There is no run in"):
        resume(tmp_path)


@pytest.mark.once
def test_a_failed_preparation_removes_what_it_made_and_only_that(
    vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, *_: object) -> None:
        path.write_bytes(b"some")
        raise MemoryError

    monkeypatch.setattr(listing, "write", fail)
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "new" / "deep"):
        with pytest.raises(MemoryError):
            train(settings_for(vectors), out)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.once
def test_the_raw_input_is_kept_where_no_epoch_is_better(tmp_path: Path) -> None:
    data = write_vectors(tmp_path / "easy.npz", noise=0.001)  # raw vectors find everything
    settings = dataclasses.replace(settings_for(data), epochs=2, steps_per_epoch=2)
    progress = StopAt(0, 0, Crash())
    table = train(settings, tmp_path / "run", progress=progress)
    assert table["raw"]["recall@1"] == 1.0
    metrics = files.read_json(tmp_path / "run" / "metrics.json")
    assert metrics["best"] == "raw"
    assert metrics["best_epoch"] in (1, 2)
    said = r"Training (made it worse|was not worth it): model.keras holds the raw input"
    assert re.match(said, metrics["note"])
    assert metrics["note"] in progress.notes[-1]
    report = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "best='raw', best_epoch=None, validation_baseline={'val_recall@1': 1.0" in report
    assert metrics["note"] in report

    x = np.load(data)["x"]
    x[0] = 0
    embeddings = keras.saving.load_model(tmp_path / "run" / "model.keras").predict(x, verbose=0)
    np.testing.assert_allclose(embeddings, raw_input.pixels(x), atol=1e-6)

    with pytest.raises(Crash):
        train(settings, tmp_path / "broken", progress=StopAt(2, 1, Crash()))
    resume(tmp_path / "broken")
    assert_same(tmp_path / "broken", tmp_path / "run")
    progress.notes.clear()
    resume(tmp_path / "run", progress=progress)
    assert progress.notes[-1] == metrics["note"]
    table = training.evaluate(tmp_path / "run", str(data), progress)
    assert table["trained"] == pytest.approx(table["raw"])
    assert metrics["note"] in progress.notes[-1]


@pytest.mark.once
def test_of_equal_candidates_the_simpler_is_kept_and_an_old_run_keeps_an_epoch() -> None:
    def best(raw: float, start: float, *trained: float) -> str:
        baseline = {name: {"val_map@r": v} for name, v in (("raw", raw), ("start", start))}
        history = {"epoch": [1.0, 2.0][: len(trained)], "val_map@r": list(trained)}
        best_epoch = 1 + int(np.argmax(trained)) if trained else 0
        return Checkpoint(history, best_epoch=best_epoch, baseline=baseline).best

    assert best(0.5, 0.5, 0.5, 0.5) == "raw"
    assert best(0.4, 0.5, 0.5) == "start"
    assert best(0.4, 0.5, 0.3, 0.6) == "trained"
    assert best(0.4, 0.5) == "start"
    old = Checkpoint({"epoch": [1.0], "val_map@r": [0.1]}, best_epoch=1)
    assert (old.best, old.scores) == ("trained", {"trained": 0.1})


def test_the_model_serves_the_images_that_it_was_trained_from(tmp_path: Path) -> None:
    data = {
        name: write_images(tmp_path / f"{name}.npz", scale)
        for name, scale in (("bytes", None), ("unit", 1 / 255), ("wide", 30.0))
    }
    settings = dataclasses.replace(settings_for(data["unit"]), epochs=1, steps_per_epoch=2)
    progress = StopAt(0, 0, Crash())
    train(settings, tmp_path / "run", progress=progress)
    assert "The model takes images with values from 0 to 1." in progress.notes
    for file in ("config.json", "metrics.json"):
        assert files.read_json(tmp_path / "run" / file)["scaling"]["kind"] == "unit"

    x, y = (np.load(data["unit"])[name] for name in "xy")
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    table = training.evaluate(tmp_path / "run", str(data["unit"]), progress)
    direct = evaluation.averaged(evaluation.scores({"x": (evaluation.embed(model, x), None)}, y)[0])
    assert table["trained"] == pytest.approx(direct["x"], abs=1e-9)

    other = training.evaluate(tmp_path / "run", str(data["bytes"]), progress)
    assert other["trained"] == pytest.approx(table["trained"], abs=1e-3)
    assert "lie from 0 to 255; they are divided by 255" in progress.notes[-1]
    with pytest.raises(ValueError, match=r"wide.npz lie from .* to 7.*; the model takes images wi"):
        training.evaluate(tmp_path / "run", str(data["wide"]))


@pytest.mark.once
def test_two_runs_are_compared_on_the_same_examples(
    unbroken: Path, vectors: Path, tmp_path: Path
) -> None:
    settings = dataclasses.replace(settings_for(vectors), seed=6, epochs=1, embedding_size=3)
    train(settings, tmp_path / "run")
    progress = StopAt(0, 0, Crash())
    compared = training.compare(unbroken, tmp_path / "run", progress=progress)
    test = splits_of(unbroken)[2]
    for name, run in (("first", unbroken), ("second", tmp_path / "run")):
        model = keras.saving.load_model(run / "model.keras")
        found = evaluation.scores({"x": (evaluation.embed(model, test.x), None)}, test.y)[0]
        assert compared[name] == evaluation.averaged(found)["x"]
    rise = compared["second"]["map@r"] - compared["first"]["map@r"]
    assert compared["difference"]["map@r"]["difference"] == pytest.approx(rise)
    assert compared["counts"] == {"classes": 4, "examples": 24}
    assert compared["said"] == progress.notes[-1].splitlines()
    assert "It needs 10 classes" not in compared["said"]

    whole = training.compare(unbroken, unbroken, str(vectors), progress)
    assert whole["counts"]["classes"] == 12
    assert whole["difference"]["mrr"] == {"difference": 0.0, "low": 0.0, "high": 0.0} | {
        "errors_removed": 0.0
    }
    assert "cannot tell them apart" in progress.notes[-1]
    assert "The model was trained on some of these classes." in progress.notes[-1]

    content = dict(np.load(vectors))
    named = tmp_path / "named.npz"
    names = np.array([f"other {k}" for k in range(12)])
    np.savez(named, **content, names=names)
    np.savez(tmp_path / "moved.npz", x=content["x"] + 1, y=content["y"])
    for data, why in (
        (named, "on the same classes"),
        (tmp_path / "moved.npz", "on different exam"),
    ):
        other = tmp_path / f"run on {data.name}"
        train(dataclasses.replace(settings, data=str(data)), other)
        with pytest.raises(ValueError, match=f"{why}.*: name DATA to compare them on"):
            training.compare(unbroken, other)


def test_a_damaged_checkpoint_is_named(unbroken: Path, tmp_path: Path) -> None:
    out = shutil.copytree(unbroken, tmp_path / "run")
    (out / "metrics.json").unlink()
    whole = (out / "checkpoint.npz").read_bytes()
    middle = len(whole) // 2
    for damaged in (
        whole[:middle],
        b"",
        b"text",
        whole[:middle] + b"other" + whole[middle + 5 :],
    ):
        (out / "checkpoint.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"checkpoint.npz is damaged"):
            resume(out)


def test_a_loss_that_is_not_a_number_ends_the_run(tmp_path: Path) -> None:
    settings = Settings("glyphs")
    commit = checkpoints.CheckpointCallback(
        RunFolder(tmp_path), settings, keras.Sequential(), Checkpoint(), Progress(), lambda _: None
    )
    with pytest.raises(ValueError, match=r"loss of epoch 1 is nan.*lower learning rate"):
        commit.on_epoch_end(0, {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.once
def test_an_image_run_trains_with_the_contrastive_loss(tmp_path: Path) -> None:
    data = write_images(tmp_path / "images.npz")
    settings = dataclasses.replace(
        settings_for(data), loss="contrastive", margin=0.5, epochs=1, classes_per_batch=None
    )
    table = train(settings, tmp_path / "run")
    assert table["pixels"]["recall@1"] == 1.0
    assert settings.make_loss().negative_margin == 0.5


@pytest.mark.once
def test_large_images_are_averaged_for_the_baseline() -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 130, 131, 3), dtype=np.uint8)
    rows = raw_input.pixels(x)
    cells = x[:, :130, :130].reshape(3, 26, 5, 26, 5, 3).astype(float).mean(axis=(2, 4))
    expected = cells.reshape(3, -1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, rtol=1e-5)


@pytest.mark.once
def test_examples_alone_in_their_class_are_told() -> None:
    split = Split(np.zeros((3, 2), "float32"), np.array([0, 0, 1], "int32"), ("a", "b"))
    said = verdicts.describe(split)
    assert said == "3 vectors of 2 classes (1 alone in their class, and no queries)"


@pytest.mark.parametrize("loss", ["circle", "arc-face"])
def test_a_run_that_is_stopped_within_epochs_ends_as_an_unbroken_one(
    loss: str, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(settings_for(vectors), loss=loss, epochs=2)
    if loss == "circle":
        settings = dataclasses.replace(settings, memory_size=16, hard_negatives=True)
    train(settings, tmp_path / "unbroken")
    monkeypatch.setattr(checkpoints, "EVERY", -1.0)
    out = tmp_path / "run"
    with pytest.raises(Crash):
        train(settings, out, progress=StopAt(1, 4, Crash()))
    said = []
    for step in (7, 8, 10):
        progress = StopAt(1, step, Crash())
        with pytest.raises(Crash):
            resume(out, progress=progress)
        said += [note for note in progress.notes if note.startswith("Going on")]
    assert said == [f"Going on in epoch 1, after {k} batches." for k in (4, 7, 8)]
    progress = StopAt(2, 5, Crash())  # of epoch 2, after what is left of epoch 1
    with pytest.raises(Crash):
        resume(out, progress=progress)
    resume(out)
    ours, theirs = contents(out), contents(tmp_path / "unbroken")
    np.testing.assert_equal(ours["checkpoint"], theirs["checkpoint"])
    assert ours["files"] == theirs["files"]
