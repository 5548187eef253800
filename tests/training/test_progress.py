"""What a run tells while it goes on; no backend takes part."""

import re

import pytest

from kinfold.training import progress
from kinfold.training.progress import Bar, Lines

pytestmark = pytest.mark.once


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def row(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "loss": 0.25, "val_map@r": 0.5}


def test_a_long_epoch_is_told_every_half_minute_with_the_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = Lines()
    lines.begin(0, 3, 100)
    clock.now += 20  # compiling
    for step in range(1, 101):
        lines.step(step, lambda: 0.5)
        clock.now += 1
    lines.epoch(row(1), True)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "epoch 1/3  step 11/100  loss 0.5  1 s per step  about 1 min left of the epoch, "
        "5 min of the run"
    )
    assert [re.search(r"step (\d+)/", line)[1] for line in said[:-1]] == ["11", "41", "71"]
    assert said[-1] == "epoch 1/3  loss 0.25  val_map@r 0.5000  120.0 s  best"

    for step in range(1, 32):
        lines.step(step, lambda: 0.5)
        clock.now += 1
    # The run has two epochs left, of which one lasts as long as the first: 120 s.
    assert capsys.readouterr().out.splitlines() == [
        "epoch 2/3  step 31/100  loss 0.5  1 s per step  about 1 min left of the epoch, "
        "3 min of the run"
    ]


def test_a_short_epoch_is_one_line(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.begin(1, 2, 29)
    for step in range(1, 30):
        clock.now += 1
        lines.step(step, lambda: 0.5)
    lines.epoch(row(2), False)
    assert capsys.readouterr().out == "epoch 2/2  loss 0.25  val_map@r 0.5000  29.0 s\n"


def test_reading_and_embedding_that_take_long_are_told(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = Lines()
    for name in ("reading the data", "embedding the examples"):
        told = lines.embedding("the examples")
        for done in range(0, 4001, 500):
            if name == "reading the data":
                lines.working(name, done, 4000)
            else:
                told(done, 4000)
            clock.now += 20
        assert capsys.readouterr().out.splitlines() == [
            f"{name}: 1,000 of 4,000, about 2 min left",
            f"{name}: 2,000 of 4,000, about 1 min left",
            f"{name}: 3,000 of 4,000, about 40 s left",
        ]


def test_times_are_in_two_units() -> None:
    told = [progress._duration(seconds) for seconds in (0.4, 59, 90, 3600, 7500, 180_000)]
    assert told == ["0 s", "59 s", "2 min", "1 h 0 min", "2 h 5 min", "2 d 2 h"]


def test_notes_hold_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    Lines().note("a\x1b[2Jb\nc")
    Bar().note("[bold]a\x1b[2J")
    assert capsys.readouterr().out == "a\\x1b[2Jb\nc\n[bold]a\\x1b[2J\n"


def test_the_bar_shows_the_epoch_the_run_and_the_work_between() -> None:
    bar = Bar()
    bar.working("reading the data", 10, 100)
    bar.working("reading the data", 100, 100)
    assert bar._bar is None
    bar.begin(1, 3, 10)
    bar.step(10, lambda: 0.5)
    bar.working("embedding the validation examples", 10, 100)
    tasks = {task.description: (task.completed, task.total) for task in bar._bar.tasks}
    assert tasks == {
        "epoch 2/3": (10, 10),
        "all epochs": (20, 30),
        "embedding the validation examples": (10, 100),
    }
    bar.working("embedding the validation examples", 100, 100)
    bar.epoch(row(2), True)
    tasks = {task.description: (task.completed, task.total) for task in bar._bar.tasks}
    assert tasks == {"epoch 3/3": (0, 10), "all epochs": (20, 30)}
    bar.end()
    bar.epoch(row(3), False)  # after the end there is nothing to show
