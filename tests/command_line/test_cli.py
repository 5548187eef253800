"""The command line: options, messages, exit codes, and the choice of the backend."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner, Result

import kinfold_cli as cli
from kinfold.core import files
from kinfold.training import finishing, listing
from kinfold.training.progress import Lines

BACKEND = keras.backend.backend()
SMALL = [
    "--embedding-size=4",
    "--classes-per-batch=3",
    "--examples-per-class=2",
    "--steps-per-epoch=3",
    "--epochs=2",
]


def kinfold(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """The message of a command that is refused, one line without a traceback."""
    result = kinfold(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "vectors.npz"
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(12), 6)
    np.savez(path, x=(rng.normal(size=(12, 8))[y] + rng.normal(size=(72, 8))), y=y)
    return path


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    result = kinfold("train", data, "--out", out, *SMALL)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "36 vectors of 6 classes to train on, 2 classes to choose the best model by, 4 to test on."
    )
    assert lines[1].startswith("The run takes batches of 3 classes x 2 examples, ")
    assert lines[2].startswith("Few classes: 6 to train on and 4 to test on.")
    assert lines[3].startswith("Before training: val_map@r 0.")
    assert [line.split()[:3] for line in lines[4:6]] == [
        ["epoch", "1/2", "loss"],
        ["epoch", "2/2", "loss"],
    ]
    assert all("val_recall@1 " in line and "val_map@r 0." in line for line in lines[4:6])
    assert lines[-1].endswith(f"open {out / 'report.html'}")
    return out


def test_train_prints_the_table_of_its_metrics(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    result = kinfold("train", "--resume", run)
    assert result.exit_code == 0
    assert "is finished: 2 of 2 epochs" in result.stdout
    rows = {line.split()[0]: line.split()[-4:] for line in result.stdout.splitlines()[:6]}
    for row, key in (("raw", "raw"), ("before", "untrained"), ("after", "trained")):
        assert rows[row] == [f"{value:.4f}" for value in metrics[key].values()]
    gain = [f"{value['difference']:+.4f}" for value in metrics["gain"].values()]
    assert rows["gain"] == gain


def test_evaluate_prints_the_table(run: Path, data: Path) -> None:
    result = kinfold("evaluate", run, data)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"On 72 vectors of 12 classes, all of {data}:"
    assert lines[1] == "The model was trained on some of these classes."
    assert lines[2].split() == ["recall@1", "recall@10", "map@r", "mrr"]
    assert [line.split()[0] for line in lines[3:7]] == ["raw", "before", "after", "gain"]
    assert lines[7].startswith("Gain over the raw input: recall@1 ")


def test_bad_input_is_one_sentence(run: Path, data: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "new")
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"no zip")
    for message, arguments in (
        ("Name the DATA to train on", ("train", *out)),
        ("Name the folder for the run: --out RUN", ("train", data)),
        ("There is no nowhere", ("train", "nowhere", *out)),
        ("is not an .npz file", ("train", bad, *out)),
        ("Did you mean cos-face?", ("train", data, *out, "--loss=cosface")),
        ("Did you mean margin?", ("train", data, *out, "--loss-option=margi=1")),
        ("compares nothing with", ("train", data, *out, "--loss=n-pairs", "--memory-size=9")),
        ("Did you mean ResNet50?", ("train", data, *out, "--backbone=resnet")),
        ("has no gamma", ("train", data, *out, "--loss=contrastive", "--gamma=64")),
        ("must be a whole number or all", ("train", data, *out, "--freeze=some")),
        ("There is no file of weights", ("train", data, *out, "--weights=gone.keras")),
        ("augmentation is for images", ("train", data, *out, "--augment=photo")),
        ("Unknown backend", ("train", data, *out, "--backend=numpy")),
        (f"--resume {run}", ("train", data, "--out", run)),
        ("There is no run in", ("train", "--resume", tmp_path)),
        ("leave out DATA, --seed", ("train", data, "--resume", run, "--seed=1", "--epochs=3")),
        ("can be raised but not lowered", ("train", "--resume", run, "--epochs=1")),
        ("There is no run in", ("evaluate", tmp_path, data)),
        ("There is no nowhere", ("evaluate", run, "nowhere")),
        ("the model takes vectors of 8", ("evaluate", run, "glyphs")),
    ):
        assert message in refused(*arguments), arguments
    assert not (tmp_path / "new").exists()


def test_a_backend_other_than_that_of_this_process_is_refused(data: Path, tmp_path: Path) -> None:
    other = "torch" if BACKEND != "torch" else "jax"
    said = refused("train", data, "--out", tmp_path / "new", "--backend", other)
    assert f"Keras already uses {BACKEND}" in said


def test_ctrl_c_exits_with_130_and_names_the_way_to_go_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    epoch = Lines.epoch

    def press(self: Lines, row: dict[str, float], best: bool) -> None:
        epoch(self, row, best)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Lines, "epoch", press)
    monkeypatch.setattr(
        finishing, "write_report", lambda path, report: path.write_text("", "utf-8")
    )
    # A shell starts a background job with SIGINT ignored, and these tests may be one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = kinfold("train", data, "--out", out, *SMALL)
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130, result.output
    assert "Interrupted. Epoch 1 is whole and kept." in result.stdout
    assert f"is in {out / 'model.keras'}" in result.stdout
    assert result.stderr == f"Stopped. Go on: kinfold train --resume {out}\n"
    assert (out / "model.keras").exists()
    assert (out / "history.csv").read_text("utf-8").count("\n") == 2


def test_a_full_disk_exits_with_1(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object) -> None:
        raise files.WriteError(f"Could not write {path}: No space left on device.")

    monkeypatch.setattr(listing, "write", full)
    result = kinfold("train", data, "--out", tmp_path / "run", *SMALL)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: Could not write")
    assert result.stderr.endswith(f"Go on: kinfold train --resume {tmp_path / 'run'}\n")


@pytest.mark.once
def test_the_backend_is_chosen_before_keras_is_imported(tmp_path: Path) -> None:
    other = next(name for name in ("jax", "torch") if name != BACKEND)
    (tmp_path / "keras.json").write_text(json.dumps({"backend": other}))
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "kinfold_cli",
            "train",
            "nowhere",
            "--out",
            "new",
            "--backend",
            BACKEND,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment | {"KERAS_HOME": str(tmp_path)},
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: There is no nowhere")
