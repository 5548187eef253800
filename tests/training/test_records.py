"""Files of a run that are of another version, or damaged but valid JSON. No backend."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinfold.encoders.scaling import Scaling
from kinfold.training import evaluation, records, run_folder
from kinfold.training.records import Config
from kinfold.training.run_folder import Checkpoint, RunFolder
from kinfold.training.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_a_config_is_read_as_it_was_written(folder: RunFolder) -> None:
    config = Config(
        Settings("glyphs", freeze="all", learning_rate=1.0),
        "jax",
        "kinfold train glyphs",
        Scaling("standardised", (0.5,), (2.0,)),
    )
    records.write_config(folder, config)
    assert records.read_config(folder) == config
    old = {"kinfold": "0.1.0", "backend": "jax", "command": "", "settings": {"data": "glyphs"}}
    folder.config.write_text(json.dumps(old))
    assert records.read_config(folder) == Config(Settings("glyphs"), "jax", "", None, "0.1.0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"data": "glyphs", "more": 1}}, "settings that are not known here: more"),
        ({"settings": {}}, "it lacks the setting data"),
        ({"settings": {"data": "glyphs", "epochs": "3"}}, "its setting 'epochs' is a text"),
        ({"settings": {"data": "glyphs", "seed": True}}, "its setting 'seed' is true or false"),
        ({"settings": {"data": "glyphs", "seed": None}}, "its setting 'seed' is null"),
        ({"settings": [1]}, "its 'settings' is a list"),
        ({"settings": None}, "its 'settings' is null"),
        ({"backend": 1}, "its 'backend' is the number 1"),
        ({"scaling": {"kind": "unit"}}, "a scaling is one of"),
    ],
)
def test_a_config_of_another_version_is_one_line(
    change: dict[str, Any], message: str, folder: RunFolder
) -> None:
    content = {"kinfold": "9.0", "backend": "jax", "settings": {"data": "glyphs"}} | change
    folder.config.write_text(json.dumps(content))
    said = rf"config.json is not of a run .*{message}.* by version 9.0 of Kinfold: use that version"
    with pytest.raises(ValueError, match=said) as raised:
        records.read_config(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["null", "[1]", '"text"', "1e5", "{}", "{", "[" * 100_000, ""])
def test_a_config_that_is_no_config_is_one_line(text: str, folder: RunFolder) -> None:
    folder.config.write_text(text)
    with pytest.raises(ValueError, match=r"config.json is (not of a run|damaged)") as raised:
        records.read_config(folder)
    assert "\n" not in str(raised.value)


ROW = {"recall@1": 0.5, "map@r": 0.25}
GAIN = {"difference": 0.1, "low": None, "high": None, "errors_removed": None}
METRICS: dict[str, Any] = {
    "raw": ROW, "trained": ROW, "gain": dict.fromkeys(ROW, GAIN), "epochs": 2, "best_epoch": 1
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": None}, {"best_epoch": "1"}, {"trained": None}, {"raw": {}}, {"raw": [1]},
        {"trained": {"recall@1": "0.5", "map@r": 1.0}}, {"gain": [1]}, {"gain": {"recall@1": GAIN}},
        {"gain": {name: {"difference": 1} for name in ROW}},
    ],
)  # fmt: skip
def test_metrics_of_another_shape_are_one_line(change: dict[str, Any], folder: RunFolder) -> None:
    assert records.read_metrics(folder.metrics, evaluation.ROWS) == {}
    folder.metrics.write_text(json.dumps(METRICS))
    assert records.read_metrics(folder.metrics, evaluation.ROWS) == METRICS
    for content in (METRICS | change, None, [], {}):
        folder.metrics.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"metrics.json is not the result of a run: .* anew"):
            records.read_metrics(folder.metrics, evaluation.ROWS)


def test_a_checkpoint_of_another_shape_is_one_line(folder: RunFolder) -> None:
    history = {"epoch": [1.0, 2.0], "loss": [0.3, 0.2], "val_map@r": [0.1, 0.2]}
    good = Checkpoint(history, [], [], 2, [], "", 1.5, {"raw": {"val_map@r": 0.3}})
    run_folder.write_checkpoint(folder.checkpoint, good)
    assert run_folder.read_checkpoint(folder.checkpoint) == good
    meta = {
        "history": history, "best_epoch": 2, "collapse": "", "seconds": 1.5, "baseline": {}
    }  # fmt: skip

    def written(content: object) -> Checkpoint:
        array = np.frombuffer(json.dumps(content).encode(), np.uint8)
        with open(folder.checkpoint, "wb") as file:
            np.savez(file, meta=array)
        return run_folder.read_checkpoint(folder.checkpoint)

    old = {name: value for name, value in meta.items() if name != "baseline"}
    assert written(old).best == "trained"  # of a run before the start was measured
    for content in (
        None, [1], {}, meta | {"more": 1}, meta | {"history": [1]}, meta | {"best_epoch": 3},
        meta | {"history": {"epoch": [1.0]}}, meta | {"history": history | {"loss": [0.1]}},
        meta | {"history": history | {"loss": ["a", "b"]}}, meta | {"baseline": {"raw": {}}},
        meta | {"baseline": {"other": {"val_map@r": 0.1}}}, meta | {"collapse": None},
        meta | {"seconds": "1"}, {"history": history},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"checkpoint.npz is damaged, or of another"):
            written(content)
