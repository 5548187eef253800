"""What the command line understands and says, before any backend has something to do."""

import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import keras
import pytest
from typer.testing import CliRunner, Result

import kinfold_cli as cli
from _kinfold_about import about, option
from _kinfold_settings import GROUPS, LOSSES, settings
from kinfold import training

pytestmark = pytest.mark.once


def kinfold(*arguments: object) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(cli.app, words, env={"COLUMNS": "80"}, prog_name="kinfold")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "",
            "Name a command: train, evaluate, compare, embed, index, calibrate, search, serve or ",
        ),
        ("trian", "There is no command 'trian'. Did you mean train? The commands are train, eval"),
        ("xyz", "There is no command 'xyz'. The commands are"),
        ("--verison", "There is no option --verison. Did you mean --version? See: kinfold --help"),
        ("train --los circle", "There is no option --los. Did you mean --loss? See: kinfold train"),
        ("train --xyz 1", "There is no option --xyz. See: kinfold train --help"),
        ("train --epochs", "Option '--epochs' requires an argument."),
        ("train x y", "unexpected extra argument"),
        ("train", "Name the DATA to train on: kinfold train DATA --out RUN; or a run to go on"),
        ("train x", "Name the folder for the run: --out RUN."),
        ("train x --out y --epochs some", "--epochs must be a whole number. Received: 'some'."),
        ("train x --out y --margin wide", "--margin must be a number or none. Received: 'wide'."),
        (
            "train x --out y --backend pytorch",
            "Expected jax, torch or tensorflow. Received: 'pytorch'. Did you mean torch?",
        ),
        ("train x --out y --loss-option a", "takes NAME=VALUE, such as gamma=80. Received: 'a'."),
        ("train --resume r --chunk 8 --out y x", "leave out DATA, --chunk, --out."),
        ("evaluate", "Missing argument 'RUN'. See: kinfold evaluate --help"),
        ("evaluate run", "Missing argument 'DATA'. See: kinfold evaluate --help"),
        ("compare run", "Missing argument 'RUN'. See: kinfold compare --help"),
    ],
)
def test_what_is_typed_wrong_is_answered_in_one_line(line: str, message: str) -> None:
    result = kinfold(*line.split())
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    said = result.stderr.splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert message in said[0]


def test_the_help_of_train_is_in_groups_with_every_setting_and_an_example() -> None:
    result = kinfold("train", "--help")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    places = [next(i for i, line in enumerate(lines) if f"─ {group} ─" in line) for group in GROUPS]
    assert places == sorted(places)
    text = re.sub(r"[\s│]+", " ", result.stdout)
    for one in settings():
        assert f" {option(one)} " in text
        for word in about(one).help(one.default).split():
            assert word in text
    assert all(name in text for name in LOSSES)
    assert any(line.strip() == "kinfold train glyphs --out runs/glyphs" for line in lines)
    for command in ("evaluate", "compare"):
        assert max(map(len, kinfold(command, "--help").stdout.splitlines())) <= 80


def test_the_version_names_what_a_report_of_a_fault_needs() -> None:
    result = kinfold("--version")
    assert result.exit_code == 0
    number = r"\d+\.\d+\S*"
    line = rf"kinfold {number}, keras {keras.__version__}, \w+ {number}, python 3\.\d+\.\d+\n"
    assert re.fullmatch(line, result.stdout)


def test_help_and_version_import_no_keras() -> None:
    for arguments in (["train", "--help"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "kinfold_cli", *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout
        imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
        assert "typer" in imported
        assert not imported & {"keras", "jax", "torch", "tensorflow", "numpy", "kinfold"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Calls of the library by a command, in place of their work."""
    calls: list[dict[str, Any]] = []

    def stand_in(name: str, *positional: str) -> None:
        def call(*arguments: Any, **named: Any) -> None:
            del named["progress"]
            calls.append({**dict(zip(positional, arguments, strict=False)), **named})

        monkeypatch.setattr(training, name, call, raising=False)

    stand_in("evaluate", "run", "data")
    stand_in("compare", "first", "second", "data")
    monkeypatch.setattr(
        training, "train", lambda settings, out, command, progress: calls.append(vars(settings))
    )
    return calls


def test_settings_arrive_with_their_types(asked: list[dict[str, Any]]) -> None:
    result = kinfold(
        *("train", "x.npz", "--out", "run", "--loss", "triplet", "--loss-option", "margin=none"),
        *("--loss-option", "negatives=hard", "--memory-size", 64, "--memory-warmup", "5"),
        *("--chunk", 16, "--freeze", "all", "--learning-rate", "1e-3", "--tensorboard"),
    )
    assert result.exit_code == 0, result.output
    expected = training.Settings(
        "x.npz",
        loss="triplet",
        loss_options={"margin": None, "negatives": "hard"},
        memory_size=64,
        memory_warmup=5,
        chunk=16,
        freeze="all",
        learning_rate=0.001,
        tensorboard=True,
    )
    assert asked == [vars(expected)]
    assert kinfold("train", "x.npz", "--out", "run", "--freeze=3", "--seed=0").exit_code == 0
    assert asked[1] == vars(training.Settings("x.npz", freeze=3))


def test_evaluate_and_compare_hand_on_what_they_are_asked(asked: list[dict[str, Any]]) -> None:
    run, other, data = Path("run"), Path("other"), "x.npz"
    for arguments in (
        ("evaluate", run, data),
        ("evaluate", run, data, "--gallery", "g", "--json", "t.json", "--report", "r.html"),
        ("compare", run, other),
        ("compare", run, other, data),
    ):
        assert kinfold(*arguments).exit_code == 0
    files = {"json_path": Path("t.json"), "report_path": Path("r.html")}
    assert asked == [
        {"run": run, "data": data, "gallery": None, "json_path": None, "report_path": None},
        {"run": run, "data": data, "gallery": "g", **files},
        {"first": run, "second": other, "data": None},
        {"first": run, "second": other, "data": data},
    ]


def test_warnings_are_a_line_without_a_source_and_without_control_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def warn(*_: object, **__: object) -> None:
        warnings.warn("unreadable: a\x1b[2J\nb\udcff.png", stacklevel=1)
        warnings.warn("of a library", DeprecationWarning, stacklevel=1)
        raise FileNotFoundError("There is no \x1b]0;c\x07.")

    monkeypatch.setattr(training, "evaluate", warn)
    warnings.simplefilter("default")
    assert kinfold("evaluate", "run", "x.npz").stderr == (
        "warning: unreadable: a\\x1b[2J\\nb\\udcff.png\nerror: There is no \\x1b]0;c\\x07.\n"
    )
