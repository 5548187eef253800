"""A run whose embeddings collapse tells it once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinfold.core import files
from kinfold.metrics import collapse
from kinfold.training import finishing
from kinfold.training.commands import Settings, resume, train
from kinfold.training.progress import Progress

RNG = np.random.default_rng(0)


class Said(Progress):
    """Keeps what is said, and breaks off at an epoch."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop, self.notes = stop, []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, step: int, loss: Any) -> None:
        if self.stop == 0:
            raise KeyboardInterrupt

    def epoch(self, row: dict[str, float], best: bool) -> None:
        if self.stop is not None:
            self.stop -= 1


def test_a_run_tells_a_collapse_once_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = []
    monkeypatch.setattr(
        finishing,
        "write_report",
        lambda path, report: (path.write_text(""), reports.append(report)),
    )
    y = np.repeat(np.arange(12), 6)
    np.savez(tmp_path / "data.npz", x=RNG.normal(size=(72, 8)), y=y)
    settings = Settings(
        str(tmp_path / "data.npz"),
        loss="contrastive",
        margin=1e-6,
        learning_rate=0.1,
        embedding_size=6,
        classes_per_batch=4,
        steps_per_epoch=15,
        epochs=3,
    )
    first, second = Said(stop=2), Said()
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run", progress=first)
    resume(tmp_path / "run", progress=second)
    told = [note for note in (*first.notes, *second.notes) if "collapsed to one point" in note]
    assert len(told) == 1, (first.notes, second.notes)
    assert told[0] in first.notes
    assert told[0].endswith(collapse.ADVICE)
    assert files.read_json(tmp_path / "run" / "metrics.json")["collapse"] == told[0]
    assert len(reports) == 2
    assert all(report.warning.endswith(told[0]) for report in reports)
