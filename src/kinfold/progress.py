"""What a run tells while it goes on: to nobody, to a terminal, or to a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rich.progress


class Progress:
    """Hears what a run does, and says nothing; subclass it to show it."""

    def note(self, text: str) -> None:
        """Tell a line."""

    def working(self, what: str, done: int, total: int) -> None:
        """Tell that `what` is done so far, out of `total`."""

    def begin(self, done: int, epochs: int, steps: int) -> None:
        """Training of `epochs` epochs of `steps` steps begins after `done` whole epochs."""

    def step(self, step: int, loss: Callable[[], float]) -> None:
        """Step number `step` of an epoch is done; `loss` gives the epoch's mean loss so far."""

    def epoch(self, row: dict[str, float], best: bool) -> None:
        """An epoch is done, with this row of the history; `best` if it gave the best model."""

    def end(self) -> None:
        """Training has ended, by itself or not."""


class Lines(Progress):
    """A plain line an epoch, for logs and pipes."""

    def __init__(self) -> None:
        self._epochs = 0
        self._since = 0.0

    def note(self, text: str) -> None:
        print(text, flush=True)

    def begin(self, done: int, epochs: int, steps: int) -> None:
        self._epochs = epochs
        self._since = time.monotonic()

    def epoch(self, row: dict[str, float], best: bool) -> None:
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        text = f"epoch {int(row['epoch'])}/{self._epochs}  loss {row['loss']:.4g}"
        for name, value in row.items():
            if name.startswith("val_"):
                text += f"  {name} {value:.4f}"
        print(f"{text}  {seconds:.1f} s{'  best' if best else ''}", flush=True)


class Bar(Progress):
    """A progress bar in a terminal, with the time left, the loss and the live metrics."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)
        self._bar: rich.progress.Progress | None = None
        self._task: Any = None
        self._epoch = self._epochs = self._steps = 0
        self._shown = 0.0
        self._passing = False

    def note(self, text: str) -> None:
        if self._passing:
            self._stop()
        self._console.print(text, markup=False, soft_wrap=True)

    def working(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._bar is None:
            self._start(what, total, passing=True)
        elif done < total and now - self._shown < 0.1:
            return
        self._shown = now
        assert self._bar is not None
        self._bar.update(self._task, completed=done, total=total)
        if done >= total:
            self._stop()

    def begin(self, done: int, epochs: int, steps: int) -> None:
        self._stop()
        self._epoch, self._epochs, self._steps = done, epochs, steps
        self._start(self._title(), epochs * steps, done * steps)

    def step(self, step: int, loss: Callable[[], float]) -> None:
        now = time.monotonic()
        if self._bar is None or (step < self._steps and now - self._shown < 0.1):
            return
        self._shown = now
        self._bar.update(
            self._task,
            completed=self._epoch * self._steps + step,
            loss=f"loss {loss():.4g}",
        )

    def epoch(self, row: dict[str, float], best: bool) -> None:
        self._epoch = int(row["epoch"])
        if self._bar is None:
            return
        live = "  ".join(
            f"{name.removeprefix('val_')} {value:.3f}"
            for name, value in row.items()
            if name.startswith("val_")
        )
        self._bar.update(
            self._task,
            description=self._title(),
            completed=self._epoch * self._steps,
            loss=f"loss {row['loss']:.4g}",
            live=live,
        )

    def end(self) -> None:
        self._stop()

    def _title(self) -> str:
        return f"epoch {min(self._epoch + 1, self._epochs)}/{self._epochs}"

    def _start(self, title: str, total: int, done: int = 0, passing: bool = False) -> None:
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._passing = passing
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[live]}"),
            console=self._console,
            expand=True,
            transient=passing,
            speed_estimate_period=120,
        )
        self._task = self._bar.add_task(title, total=total, completed=done, loss="", live="")
        self._bar.start()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
