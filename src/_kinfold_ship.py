"""The command that writes a run's model for another machine: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from _kinfold_command import BackendOption, app, panel, progress, use_backend_of
from _kinfold_messages import messages

# Nothing here imports Keras before `use_backend_of` has said which backend it is to use.


# The backend that writes a format, whatever the run's own is.
WRITERS = {"saved_model": "tensorflow", "litert": "tensorflow"}


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that train has written.")],
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Folder for the model and the index.")
    ],
    format: Annotated[
        str,
        panel(
            "Run",
            "Format: onnx, saved_model, litert, openvino or torch (default onnx).",
            "NAME",
            "--format",
        ),
    ] = "onnx",
    precision: Annotated[
        str,
        panel(
            "Run",
            "Precision: float32, float16 or int8 (default float32). saved_model and torch have "
            "float32 only.",
            "NAME",
            "--precision",
        ),
    ] = "float32",
    backend: Annotated[str | None, BackendOption] = None,
) -> None:
    """Write the model of RUN in another format, checked against RUN on its test classes.

    With --format onnx the folder runs without Keras: kinfold search FOLDER IMAGE.
    """
    with messages(None):
        use_backend_of(run, backend or WRITERS.get(format, "torch"))
        from kinfold import shipping

        shipping.export(run, out, format, precision, progress())
