"""`python -m benchmarks COMMAND`: measure, print, write."""

import argparse
from collections.abc import Sequence

from benchmarks import (
    chunks,
    data,
    distributed,
    gpu_run,
    hard_negatives,
    kinds,
    losses_run,
    memory,
    recipe,
    search,
    serving,
)
from benchmarks.quality import run as quality_run

# Each module has the HELP of its command, its `add_arguments` and its `main`.
COMMANDS = {
    "losses": losses_run,
    "quality": quality_run,
    "chunks": chunks,
    "memory": memory,
    "gpu": gpu_run,
    "distributed": distributed,
    "data": data,
    "hard-negatives": hard_negatives,
    "recipe": recipe,
    "kinds": kinds,
    "search": search,
    "serve": serving,
}


def main(given: Sequence[str] | None = None) -> None:
    """Run a command with the given arguments, or with those of the program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=module.HELP))
    arguments = parser.parse_args(given)
    COMMANDS[arguments.command].main(arguments, parser)


if __name__ == "__main__":
    main()
