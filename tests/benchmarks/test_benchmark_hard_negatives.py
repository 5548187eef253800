"""The paired table of hard negatives: which trainings are pairs, and their interval."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from benchmarks.hard_negatives import interval, kept, pairs_of, report, summary

from benchmarks import characters, machine

pytestmark = pytest.mark.once


def row(seed: int, hard: bool, value: float, data: str = "glyphs") -> dict:
    found = {"map@r": value, "recall@1": value + 0.1, "seconds": 9.0}
    return {"data": data, "seed": seed, "hard_negatives": hard, **found}


ROWS = [
    row(0, False, 0.5), row(0, True, 0.52), row(1, False, 0.6), row(1, True, 0.64),
    row(2, False, 0.7), row(0, True, 0.9, "icons"),
]  # fmt: skip


def test_interval() -> None:
    # Of 0.02 and 0.04: 0.03, and 12.706 standard errors of 0.01 to each side.
    mean, low, high = interval(np.array([0.02, 0.04]))
    assert mean == pytest.approx(0.03)
    assert (low, high) == pytest.approx((0.03 - 0.12706, 0.03 + 0.12706), abs=1e-5)
    assert interval(np.array([0.02])) == (0.02, None, None)


def test_only_pairs_count() -> None:
    assert [(a["seed"], b["seed"]) for a, b in pairs_of(ROWS[:5])] == [(0, 0), (1, 1)]
    assert not any(a["hard_negatives"] or not b["hard_negatives"] for a, b in pairs_of(ROWS[:5]))
    first, second = summary(ROWS)
    assert (first["data"], first["metric"], first["seeds"]) == ("glyphs", "map@r", 2)
    assert first["without"] == pytest.approx(0.55)
    assert first["with"] == pytest.approx(0.58)
    assert first["difference"] == pytest.approx(second["difference"]) == pytest.approx(0.03)


def test_report_and_going_on(tmp_path) -> None:
    record = {"epochs": 2, "steps": 3, **machine.describe(), "rows": ROWS, "summary": summary(ROWS)}
    text = report(record)
    assert "0.5500  0.5800     +0.0300" in text
    assert "-0.0971 to +0.1571" in text
    path = tmp_path / "hard_negatives.json"
    assert kept(path, 2, 3) == []
    machine.write(path, record)
    assert kept(path, 2, 3) == ROWS
    assert kept(path, 2, 4) == []


def test_characters_are_drawn_in_every_font_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_FIRST": 0x41, "_LAST": 0x5A, "CLASSES": 20, "LEAST": 8}.items():
        monkeypatch.setattr(characters, name, value)
    train, test = characters.characters(Path(matplotlib.get_data_path(), "fonts", "ttf"))
    assert (len(train.names), len(test.names)) == (14, 6)
    assert not set(train.names) & set(test.names)
    assert train.x.shape[1:] == (32, 32, 1)
    for part in (train, test):
        assert np.bincount(part.y).min() >= 8
        same = {(label, picture.tobytes()) for label, picture in zip(part.y, part.x, strict=True)}
        assert len(same) == len(part.y)
