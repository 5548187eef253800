"""What a run tells while it goes on: to nobody, to a terminal, or to a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from _kinfold_text import printable

if TYPE_CHECKING:
    import rich.progress


class Progress:
    """Hears what a run does, and says nothing; subclass it to show it."""

    def note(self, text: str) -> None:
        """Tell a line."""

    def working(self, what: str, done: int, total: int) -> None:
        """Tell how far `what` is: `done` out of `total`, with which it ends."""

    def embedding(self, which: str) -> Callable[[int, int], None]:
        """Return what an embedding of `which` examples calls with how many are done, of how many.

        Example:

        >>> from kinfold.training.progress import Progress
        >>> Progress().embedding("the test examples")(256, 1000)
        """
        return lambda done, total: self.working(f"embedding {which}", done, total)

    def begin(self, done: int, epochs: int, steps: int) -> None:
        """Training of `epochs` epochs of `steps` steps begins after `done` whole epochs."""

    def step(self, step: int, loss: Callable[[], float]) -> None:
        """Step number `step` of an epoch is done; `loss` gives the epoch's mean loss so far."""

    def epoch(self, row: dict[str, float], best: bool) -> None:
        """An epoch is done, with this row of the history; `best` if it gave the best model."""

    def end(self) -> None:
        """Training has ended, by itself or not."""


class Lines(Progress):
    """Plain lines, for logs and pipes: one per epoch, and one every 30 seconds within it.

    Reading and embedding that take longer also get a line every 30 seconds.
    """

    every = 30.0  # seconds

    def __init__(self) -> None:
        self._epoch = self._epochs = self._steps = 0
        self._begun = self._told = 0.0  # when the epoch began, when the last line was told
        self._mark = (0, 0.0)  # a step, and when it was done
        self._epoch_seconds: float | None = None
        self._works: dict[str, tuple[int, float, float]] = {}  # begun from, begun at, told at

    def note(self, text: str) -> None:
        print(printable(text), flush=True)

    def working(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        first, begun, told = self._works.setdefault(what, (done, now, now))
        if done >= total:
            del self._works[what]
        elif now - told >= self.every and done > first:
            self._works[what] = (first, begun, now)
            left = _duration((now - begun) / (done - first) * (total - done))
            self.note(f"{what}: {done:,} of {total:,}, about {left} left")

    def begin(self, done: int, epochs: int, steps: int) -> None:
        self._epoch, self._epochs, self._steps = done, epochs, steps
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._begun = self._told = time.monotonic()
        self._mark = (0, self._begun)

    def step(self, step: int, loss: Callable[[], float]) -> None:
        now = time.monotonic()
        if now - self._told >= self.every and step < self._steps:
            self._told = now
            marked, at = self._mark
            pace = (now - at) / (step - marked)
            left = pace * (self._steps - step)
            whole = self._epoch_seconds or pace * self._steps
            run = left + whole * (self._epochs - self._epoch - 1)
            self.note(
                f"epoch {self._epoch + 1}/{self._epochs}  step {step}/{self._steps}  "
                f"loss {loss():.4g}  {pace:.3g} s per step  about {_duration(left)} left of the "
                f"epoch, {_duration(run)} of the run"
            )
            self._mark = (step, now)
        elif step == 1:
            self._mark = (1, now)  # a first step compiles, and says nothing of the others

    def epoch(self, row: dict[str, float], best: bool) -> None:
        seconds = self._epoch_seconds = time.monotonic() - self._begun
        self._epoch = int(row["epoch"])
        text = f"epoch {self._epoch}/{self._epochs}  loss {row['loss']:.4g}"
        for name, value in row.items():
            if name.startswith("val_"):
                text += f"  {name} {value:.4f}"
        self.note(f"{text}  {seconds:.1f} s{'  best' if best else ''}")
        self._begin_epoch()


def _duration(seconds: float) -> str:
    """Say a time in its two largest units: "2 h 5 min"."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // (24 * 60)} d {minutes // 60 % 24} h"


class Bar(Progress):
    """Bars in a terminal with the time left: of the epoch and of the run, of reading, embedding."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)
        self._bar: rich.progress.Progress | None = None
        self._tasks: dict[str, Any] = {}
        self._training = False
        self._epoch = self._epochs = self._steps = 0
        self._shown = 0.0

    def note(self, text: str) -> None:
        if not self._training:
            self._stop()
        self._console.print(printable(text), markup=False, soft_wrap=True)

    def working(self, what: str, done: int, total: int) -> None:
        if done >= total:
            self._remove(what)
        elif what not in self._tasks:
            self._add(what, what, total, done)
        elif self._is_due():
            self._update(what, completed=done, total=total)

    def begin(self, done: int, epochs: int, steps: int) -> None:
        self._stop()
        self._training = True
        self._epoch, self._epochs, self._steps = done, epochs, steps
        self._add("epoch", self._title(), steps)
        self._add("run", "all epochs", epochs * steps, done * steps)

    def step(self, step: int, loss: Callable[[], float]) -> None:
        if self._training and (step >= self._steps or self._is_due()):
            self._update("epoch", completed=step, facts=f"loss {loss():.4g}")
            self._update("run", completed=self._epoch * self._steps + step)

    def epoch(self, row: dict[str, float], best: bool) -> None:
        self._epoch = int(row["epoch"])
        if not self._training:
            return
        facts = "  ".join(
            f"{name.removeprefix('val_')} {value:.3f}"
            for name, value in row.items()
            if name.startswith("val_")
        )
        self._update("run", completed=self._epoch * self._steps, facts=facts)
        if self._epoch < self._epochs:
            assert self._bar is not None
            self._bar.reset(self._tasks["epoch"], description=self._title())

    def end(self) -> None:
        self._stop()

    def _title(self) -> str:
        return f"epoch {min(self._epoch + 1, self._epochs)}/{self._epochs}"

    def _is_due(self) -> bool:
        now = time.monotonic()
        due = now - self._shown >= 0.1
        if due:
            self._shown = now
        return due

    def _add(self, name: str, title: str, total: int, done: int = 0) -> None:
        if self._bar is None:
            self._start()
        assert self._bar is not None
        self._tasks[name] = self._bar.add_task(title, total=total, completed=done, facts="")

    def _update(self, name: str, **what: Any) -> None:
        assert self._bar is not None
        self._bar.update(self._tasks[name], **what)

    def _remove(self, name: str) -> None:
        if name in self._tasks:
            assert self._bar is not None
            self._bar.remove_task(self._tasks.pop(name))
        if not self._tasks:
            self._stop()

    def _start(self) -> None:
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
            expand=True,
            transient=not self._training,
            speed_estimate_period=120,
        )
        self._bar.start()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._training = None, False
        self._tasks.clear()
