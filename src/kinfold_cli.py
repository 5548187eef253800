"""The command line: parsing and the choice of the backend; the work is in `training`.

It stands beside the package because importing anything of `kinfold` imports Keras, which fixes the
backend, and `--backend` chooses that.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import os
import platform
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import _kinfold_backend
import _kinfold_devices
from _kinfold_about import about, option, read
from _kinfold_command import (
    BackendOption,
    app,
    panel,
    progress,
    typer,
    use_backend,
    use_backend_of,
)
from _kinfold_messages import messages
from _kinfold_settings import settings
from _kinfold_text import DATA_FORMS

# Nothing here imports Keras before `use_backend` has said which backend it is to use.

_OPEN = ("resume", "epochs", "patience", "devices")  # options that --resume leaves open
EXAMPLES = """Examples:

kinfold train glyphs --out runs/glyphs
kinfold train photos/ --out runs/photos --backbone MobileNetV2
kinfold train x.npz --out runs/x --loss triplet --loss-option margin=0.1
kinfold train --resume runs/x --epochs 40"""


def _version(asked: bool) -> None:
    if asked:
        print(_versions())
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _begin(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the versions of Kinfold, Keras, the backend and Python.",
            callback=_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        context.fail(
            "Name a command: train, evaluate, compare, embed, index, calibrate, search, serve or "
            "export. For a first run: kinfold train glyphs --out runs/glyphs."
        )


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting of a run, in the place of its `**given`.

    Values arrive as text, and those that are not given as None.
    """
    own = inspect.signature(command, eval_str=True)
    *first, _ = own.parameters.values()
    options = []
    for one in settings():
        it, flag = about(one), option(one)
        kind: Any = str | None
        if one.name == "data":
            info = typer.Argument(metavar=it.metavar, help=it.help(None), show_default=False)
        elif isinstance(one.default, bool):
            kind, info = bool, panel(it.group, it.help(one.default), "", flag)
        else:
            kind = list[str] | None if one.name == "loss_options" else str | None
            info = panel(it.group, it.help(one.default), it.metavar, flag)
        options.append(
            inspect.Parameter(
                one.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if kind is bool else None,
                annotation=Annotated[kind, info],
            )
        )
    command.__signature__ = own.replace(parameters=[*first, *options])  # type: ignore[attr-defined]
    return command


@app.command(epilog=EXAMPLES)
@_with_settings
def train(
    *,
    out: Annotated[
        Path | None,
        panel("Run", "Folder for the model, its metrics and its report.", "RUN"),
    ] = None,
    resume: Annotated[
        Path | None,
        panel("Run", "Continue the run in this folder, with its own settings.", "RUN"),
    ] = None,
    backend: Annotated[str | None, BackendOption] = None,
    **given: Any,
) -> None:
    """Train a model on DATA into the folder --out, or continue the run in --resume.

    30% of the classes are kept out of training. The result is how well the model finds them.
    """
    given = {name: value for name, value in given.items() if value not in (None, False, [])}
    with messages(resume or out):
        values = {
            one.name: read(given[one.name], one)
            if isinstance(given[one.name], str)
            else given[one.name]
            for one in settings()
            if one.name in given
        }
        if resume is not None:
            own = {"out": out, "backend": backend}
            names = {one.name: option(one) for one in settings()}
            others = [names[name] for name in given if name not in _OPEN]
            others += [f"--{name}" for name, value in own.items() if value is not None]
            others.sort(key=lambda name: (name.startswith("-"), name))  # DATA first
            if others:
                raise ValueError(
                    "--resume takes everything from the run, except that --epochs can be raised "
                    f"and --patience and --devices changed: leave out {', '.join(others)}."
                )
            count = values.get("devices") or _kinfold_devices.of_run(resume)
            use_backend(_kinfold_backend.of_run(resume), count)
            _launch(count)
            from kinfold import training

            changed = {name: values.get(name) for name in ("epochs", "patience", "devices")}
            training.resume(resume, progress=progress(), **changed)
            return
        if "data" not in given:
            raise ValueError(
                "Name the DATA to train on: kinfold train DATA --out RUN; or a run to go on with: "
                "kinfold train --resume RUN."
            )
        if out is None:
            raise ValueError("Name the folder for the run: --out RUN.")
        use_backend(backend, values.get("devices", 1))
        _launch(values.get("devices", 1))
        from kinfold import training
        from kinfold.training import run_losses

        if "loss_options" in values:
            loss = values.get("loss", training.Settings.loss)
            values["loss_options"] = run_losses.parse_options(loss, values["loss_options"])
        made = training.Settings(**values)
        training.train(made, out, shlex.join(["kinfold", *sys.argv[1:]]), progress())


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that train has written.")],
    data: Annotated[
        str, typer.Argument(metavar="DATA", help=f"What to measure it on: {DATA_FORMS}")
    ],
    *,
    gallery: Annotated[
        str | None,
        panel("Run", "Data to search in, instead of the other examples of DATA.", "DATA"),
    ] = None,
    json: Annotated[
        Path | None, panel("Run", "File to write the table to, as JSON.", "FILE", "--json")
    ] = None,
    report: Annotated[
        Path | None, panel("Run", "File to write a report to, as HTML.", "FILE", "--report")
    ] = None,
    backend: Annotated[str | None, BackendOption] = None,
) -> None:
    """Measure the model of RUN on DATA: how well each example finds the others of its class."""
    with messages(None):
        use_backend_of(run, backend)
        from kinfold import training

        files = {"json_path": json, "report_path": report}
        training.evaluate(run, data, progress=progress(), gallery=gallery, **files)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that train has written.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another such folder.")],
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA",
            help=f"What to measure both on (default the test classes of the runs): {DATA_FORMS}",
            show_default=False,
        ),
    ] = None,
    backend: Annotated[str | None, BackendOption] = None,
) -> None:
    """Compare the models of two runs on the same classes: the difference, with an interval."""
    with messages(None):
        use_backend_of(first, backend)
        from kinfold import training

        training.compare(first, second, data, progress=progress())


# Their commands come after these.
# isort: off
import _kinfold_use  # noqa: E402, F401
import _kinfold_ship  # noqa: E402, F401
import _kinfold_serve  # noqa: E402, F401
# isort: on


def main() -> None:
    """Run the command line: the entry point `kinfold`."""
    app(prog_name="kinfold")


def _versions() -> str:
    """The versions of what is installed, without importing it."""
    try:
        backend = _kinfold_backend.find()
    except ImportError:
        backend = ""
    found = []
    for name, packages in (
        ("kinfold", ["kinfold"]),
        ("keras", ["keras"]),
        (backend, [backend, f"{backend}-cpu"]),
    ):
        for package in packages:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
                found.append(f"{name} {importlib.metadata.version(package)}")
                break
    return ", ".join([*found, f"python {platform.python_version()}"])


def _launch(devices: int) -> None:
    """On PyTorch, run this command again in a process for each device, and exit as they do."""
    if devices > 1 and _kinfold_backend.find() == "torch" and "RANK" not in os.environ:
        from kinfold.training.devices.launcher import launch

        raise typer.Exit(launch(devices, sys.argv[1:]))


if __name__ == "__main__":
    main()
