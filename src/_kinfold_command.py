"""What all commands share: the program, options, and what they do before Keras is imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _kinfold_backend
import _kinfold_devices

try:
    import typer as typer
except ImportError:
    raise SystemExit("error: the command line needs typer: pip install kinfold[train]") from None

from _kinfold_messages import Commands

if TYPE_CHECKING:
    from kinfold.training.progress import Progress

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Train models that embed examples of one class close together, and measure how well they "
    "find classes that they were not trained on.",
)


def panel(group: str, text: str, metavar: str | None = None, *names: str) -> Any:
    return typer.Option(
        *names, help=text, metavar=metavar, rich_help_panel=group, show_default=False
    )


BackendOption = panel(
    "Run",
    "Backend of Keras: jax, torch or tensorflow (default KERAS_BACKEND, else the one in "
    "keras.json, else the first installed of tensorflow, jax and torch).",
    "NAME",
)


def progress() -> Progress:
    from kinfold.training.progress import Bar, Lines

    return Bar() if sys.stdout.isatty() else Lines()


def use_backend(asked: str | None, devices: int = 1) -> None:
    """Choose the backend and set it for Keras, which reads it once, when it is imported."""
    _kinfold_backend.use(asked)
    _kinfold_devices.ask(_kinfold_backend.find(asked), devices)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def use_backend_of(run: Path, asked: str | None) -> None:
    use_backend(_kinfold_backend.for_run(run, asked))
