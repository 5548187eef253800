"""What the command line says when something is wrong: one line each on stderr, and exit codes.

Like `kinfold_cli`, which uses it, it imports no Keras: mistyped commands are answered at once.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from _kinfold_text import did_you_mean, printable


class Commands(TyperGroup):
    """The commands; what is typed wrong is answered in one line, with exit code 2."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        standalone_mode = kwargs.pop("standalone_mode", True)
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except Exception as error:
            # Click's errors of usage, whatever copy of Click they come from.
            if not hasattr(error, "format_message") or not standalone_mode:
                raise
            say(f"error: {_usage(error)}")
            sys.exit(2)
        if standalone_mode:
            sys.exit(code if isinstance(code, int) else 0)
        return code

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is None:
            names = self.list_commands(ctx)
            say(
                f"error: There is no command {cmd_name!r}.{did_you_mean(cmd_name, names)} The "
                f"commands are {', '.join(names)}."
            )
            raise typer.Exit(2)
        return command


def _usage(error: Any) -> str:
    """Say what was typed wrong in one line."""
    wrong = getattr(error, "option_name", None)
    if wrong is None or not type(error).__name__.startswith("NoSuch"):
        said = error.format_message()
        return f"{said} See: {error.ctx.command_path} --help" if error.ctx else said
    known = [one for p in error.ctx.command.params for one in p.opts if one.startswith("--")]
    return (
        f"There is no option {wrong}.{did_you_mean(wrong, known)} See: "
        f"{error.ctx.command_path} --help"
    )


@contextlib.contextmanager
def messages(run: Path | None) -> Iterator[None]:
    """Tell warnings and errors in a line each; exit with 2 for the user's, 1 for the machine's."""
    go_on = f"Go on: kinfold train --resume {shlex.quote(str(run))}"
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except KeyboardInterrupt:
            begun = run is not None and (run / "config.json").exists()
            if os.environ.get("RANK", "0") == "0":  # of several processes one tells
                say(f"Stopped. {go_on}" if begun else "Stopped.")
            raise typer.Exit(130) from None
        except (ValueError, FileNotFoundError, ImportError) as error:
            say(f"error: {error}")
            raise typer.Exit(2) from None
        except RuntimeError as error:
            if type(error).__name__ != "LostRankError":  # of torch, which is not imported here
                raise
            say(f"error: {error}")
            raise typer.Exit(1) from None
        except OSError as error:
            from kinfold.core.files import WriteError

            resumable = isinstance(error, WriteError) or type(error).__name__ == "RankFailedError"
            say(f"error: {error} {go_on}" if resumable and run else f"error: {error}")
            raise typer.Exit(1) from None


def say(text: str) -> None:
    """Print to stderr, control characters escaped."""
    print(printable(text), file=sys.stderr, flush=True)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):  # others are for those who write programs
        say("warning: " + str(message).replace("\n", "\\n"))
