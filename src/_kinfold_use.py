"""The commands that use a trained run: embed, index, calibrate, search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from _kinfold_command import BackendOption, app, panel, progress, use_backend_of
from _kinfold_messages import messages
from _kinfold_text import DATA_FORMS

# Nothing here imports Keras before `use_backend_of` has said which backend it is to use.

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A folder that train has written.")
]
ANYTHING = "A folder of images, with or without class folders; an image; or other data: "


@app.command()
def embed(
    run: RunArgument,
    data: Annotated[str, typer.Argument(metavar="DATA", help=ANYTHING + DATA_FORMS)],
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Parquet file for the embeddings.")
    ],
    backend: Annotated[str | None, BackendOption] = None,
) -> None:
    """Embed DATA with the model of RUN, into a Parquet file of paths, labels and embeddings."""
    with messages(None):
        use_backend_of(run, backend)
        from kinfold import trained

        trained.embed(run, data, out, progress())


@app.command()
def index(
    run: RunArgument,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="The items to be found. " + ANYTHING + DATA_FORMS)
    ],
    *,
    add: Annotated[
        bool, panel("Run", "Add to the index of RUN instead of writing a new one.", "", "--add")
    ] = False,
    engine: Annotated[
        str,
        panel("Run", "Engine: exact, faiss, milvus or auto (default auto).", "NAME", "--engine"),
    ] = "auto",
    compress: Annotated[
        str | None,
        panel("Run", "Compare short codes first: int8 or binary.", "CODE", "--compress"),
    ] = None,
    backend: Annotated[str | None, BackendOption] = None,
) -> None:
    """Write an index of DATA into RUN, for search and serve."""
    with messages(None):
        use_backend_of(run, backend)
        from kinfold import trained

        trained.index(run, data, progress(), add=add, engine=engine, compress=compress)


@app.command()
def calibrate(
    run: RunArgument,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help=f"Classes that RUN was not trained on, with labels: {DATA_FORMS}"
        ),
    ],
    *,
    far: Annotated[
        float,
        panel("Run", "Share of pairs of different classes to accept (default 0.01).", "SHARE"),
    ] = 0.01,
    backend: Annotated[str | None, BackendOption] = None,
) -> None:
    """Set the thresholds of RUN on DATA instead of on its validation classes."""
    with messages(None):
        use_backend_of(run, backend)
        from kinfold import trained

        trained.calibrate(run, data, far, progress())


@app.command()
def search(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    *,
    k: Annotated[int, panel("Run", "Number of neighbours to show (default 5).", "K", "-k")] = 5,
    far: Annotated[
        float | None,
        panel(
            "Run",
            "Share of images of unknown classes that may be taken for a known one (default 0.01, "
            "or one of the held-out images if they are few).",
            "SHARE",
        ),
    ] = None,
    json: Annotated[bool, panel("Run", "Print JSON.", "", "--json")] = False,
    html: Annotated[
        Path | None, panel("Run", "HTML file for a page with the pictures.", "FILE", "--html")
    ] = None,
    backend: Annotated[str | None, BackendOption] = None,
) -> None:
    """Find the nearest items of each IMAGE in the index of RUN, and its class or "unknown".

    The exit code is 0 if all have a known class, and 3 if one is unknown.
    """
    with messages(None):
        from _kinfold_found import as_json, as_text
        from kinfold_bundle import Bundle, is_bundle

        if is_bundle(run):
            if far is not None or html is not None:
                raise ValueError("A bundle has one threshold, and writes no page: search the run.")
            matches = Bundle(run).search(images, k)
        else:
            use_backend_of(run, backend)
            from kinfold import trained

            matches = trained.search(run, images, progress(), k=k, far=far, html=html)
        print(as_json(images, matches) if json else as_text(images, matches))
    if not all(match.known for match in matches):
        raise typer.Exit(3)
