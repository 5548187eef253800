"""Runs on several devices give what one device gives, and may change their number on the way."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import _kinfold_devices
import kinfold
import kinfold_cli as cli
from kinfold.training import finishing, records, run_folder
from kinfold.training.commands import Settings, resume, train
from kinfold.training.devices.one import Devices
from kinfold.training.run_folder import RunFolder
from native import BACKEND, assert_close

pytestmark = pytest.mark.usefixtures("compile_once")

TRAINS_RANKS = hasattr(keras.Model, "_initialize_ddp")  # Keras 3.16 on PyTorch
several = pytest.mark.skipif(
    BACKEND == "torch" and not TRAINS_RANKS,
    reason="Keras combines the gradients of processes from 3.16 on",
)


@pytest.fixture(autouse=True)
def quick_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "write_report", lambda path, report: path.write_text(""))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    path = tmp_path_factory.mktemp("data") / "vectors.npz"
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(12), 6)
    x = rng.normal(size=(12, 8))[y] + 0.3 * rng.normal(size=(72, 8))
    np.savez(path, x=x.astype("float32"), y=y)
    # Prototypes are variables of the loss, which must lie on the devices too.
    sizes = {"classes_per_batch": 4, "examples_per_class": 2, "steps_per_epoch": 5, "epochs": 2}
    return Settings(str(path), loss="arc-face", embedding_size=8, seed=5, **sizes)


def environment() -> dict[str, str]:
    source = str(Path(kinfold.__file__).parents[1])
    path = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": path}


def kinfold_train(*arguments: object) -> str:
    """Run the command in a process of its own, where the devices are still to be made."""
    command = [sys.executable, "-m", "kinfold_cli", "train", *map(str, arguments)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def assert_same_run(run: Path, other: Path) -> None:
    first, second = (run_folder.read_checkpoint(RunFolder(one).checkpoint) for one in (run, other))
    assert first.epochs == second.epochs
    for name, values in first.history.items():
        assert_close(np.array(second.history[name]), np.array(values), 1e-5, name)
    for arrays in ("weights", "optimizer"):
        for a, b in zip(getattr(first, arrays), getattr(second, arrays), strict=True):
            if a.dtype != np.uint32 and a.size:  # not the seeds
                np.testing.assert_allclose(b, a, atol=1e-5 * max(1, np.abs(a).max()), rtol=0)


@several
def test_two_devices_train_what_one_trains_and_one_goes_on(
    settings: Settings, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    train(settings, one)
    told = kinfold_train(
        settings.data,
        *("--out", two, "--devices", 2, "--loss", settings.loss, "--seed", 5),
        *("--embedding-size", 8, "--classes-per-batch", 4, "--examples-per-class", 2),
        *("--steps-per-epoch", 5, "--epochs", 2),
    )
    assert told.count("epoch 2/2") == 1  # one process tells
    assert records.read_config(RunFolder(two)).settings.devices == 2
    assert_same_run(one, two)
    resume(one, epochs=3)
    resume(two, epochs=3, devices=1)
    assert records.read_config(RunFolder(two)).settings.devices == 1
    assert_same_run(one, two)


@pytest.mark.skipif(TRAINS_RANKS, reason="PyTorch takes as many processes as it is told")
def test_more_devices_than_there_are_is_one_sentence(settings: Settings, tmp_path: Path) -> None:
    arguments = ["train", settings.data, "--out", str(tmp_path / "run"), "--devices", "64"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    said = {
        "jax": "JAX has 1 CPU device here: pass at most that many",
        "tensorflow": "TensorFlow has 1 CPU device here: pass at most that many",
        "torch": "several devices need Keras 3.16 or newer",
    }
    assert said[BACKEND] in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "A batch of 4 x 2 examples cannot be shared evenly by 3 devices"),
        ({"loss": "info-nce"}, "A batch of 4 classes cannot be shared evenly by 3 devices"),
        ({"loss": "siamese-contrastive"}, "The loss siamese-contrastive pairs each class with"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused(
    settings: Settings, change: dict, message: str, tmp_path: Path
) -> None:
    class Three(Devices):
        count, global_arrays = 3, False

    settings = dataclasses.replace(settings, **change)
    batches = settings.make_batches(run_folder.Split(*_arrays(settings.data)))
    with pytest.raises(ValueError, match=message):
        settings.check_shares(batches.indices, Three())
    settings.check_shares(batches.indices, Devices())


def _arrays(path: str) -> tuple:
    with np.load(path) as arrays:
        return arrays["x"], arrays["y"], tuple(map(str, range(12)))


@pytest.mark.once
def test_flags_of_xla_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    count = "--xla_force_host_platform_device_count"
    for before, backend, after in (
        ("", "jax", f"{count}=2"),
        ("--xla_a=1", "jax", f"--xla_a=1 {count}=2"),
        (f"{count}=4", "jax", f"{count}=4"),
        ("--xla_a=1", "torch", "--xla_a=1"),
    ):
        monkeypatch.setenv("XLA_FLAGS", before)
        _kinfold_devices.ask(backend, 2)
        assert os.environ["XLA_FLAGS"] == after


def rank_of(process: Path) -> str | None:
    with contextlib.suppress(OSError):
        for one in (process / "environ").read_bytes().split(b"\0"):
            if one.startswith(b"RANK="):
                return one[5:].decode()
    return None


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not TRAINS_RANKS or not Path("/proc").exists(), reason="processes of PyTorch")
def test_a_killed_process_is_named_and_the_run_goes_on(settings: Settings, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = [
        settings.data,
        *("--devices", 2, "--embedding-size", 8, "--classes-per-batch", 4),
        *("--examples-per-class", 2, "--steps-per-epoch", 40, "--epochs", 3),
    ]
    kinfold_train(*options, "--out", whole)
    command = [sys.executable, "-m", "kinfold_cli", "train", *map(str, options), "--out", broken]
    started = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    while not (broken / "history.csv").exists():
        assert started.poll() is None
        time.sleep(0.02)
    (killed,) = (one for one in children(started.pid) if rank_of(Path(f"/proc/{one}")) == "1")
    os.kill(killed, signal.SIGKILL)
    said = started.communicate(timeout=120)[1]
    assert started.returncode == 1
    assert f"error: Rank 1 of 2 (process {killed}) was ended by SIGKILL" in said
    assert f"Go on: kinfold train --resume {broken}" in said
    assert run_folder.read_checkpoint(RunFolder(broken).checkpoint).epochs < 3
    kinfold_train("--resume", broken)
    first, second = (
        run_folder.read_checkpoint(RunFolder(one).checkpoint) for one in (whole, broken)
    )
    np.testing.assert_equal(first.history, second.history)
    np.testing.assert_equal(first.weights, second.weights)
