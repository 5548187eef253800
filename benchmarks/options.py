"""The options that several commands have."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from benchmarks.losses import BACKENDS

RESULTS = Path(__file__).resolve().parent / "results"


def add_backends(parser: ArgumentParser) -> None:
    """Add --backends."""
    parser.add_argument("--backends", default=",".join(BACKENDS), help="comma-separated")


def backends(arguments: Namespace, parser: ArgumentParser) -> tuple[str, ...]:
    """The backends asked for; a name that is none of them ends the program."""
    asked = tuple(arguments.backends.split(","))
    if unknown := set(asked) - set(BACKENDS):
        parser.error(f"unknown backend {sorted(unknown)[0]!r}; known: {', '.join(BACKENDS)}")
    return asked


def add_out(parser: ArgumentParser) -> None:
    """Add --out, the folder of the results."""
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder")
