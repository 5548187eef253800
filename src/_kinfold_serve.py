"""The command that serves a run: serve."""

from __future__ import annotations

import importlib.util
import os
from typing import Annotated

from _kinfold_command import BackendOption, app, panel, use_backend_of
from _kinfold_messages import messages
from _kinfold_text import printable
from _kinfold_use import RunArgument

# Nothing here imports Keras before `use_backend_of` has said which backend it is to use.

_NEEDED = ("fastapi", "fastapi_offline", "multipart", "plotly", "sklearn", "uvicorn")


@app.command()
def serve(
    run: RunArgument,
    *,
    host: Annotated[
        str,
        panel(
            "Run",
            "Address to listen on (default 127.0.0.1: this machine alone). On any other address, "
            "requests need a token.",
            "HOST",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, panel("Run", "Port to listen on (default 8000); 0 for any that is free.", "N")
    ] = 8000,
    token: Annotated[
        str | None,
        panel(
            "Run",
            "Token that requests must send (default KINFOLD_TOKEN; else none for this machine "
            "alone, and a new one, which is printed, for any other address).",
            "TEXT",
        ),
    ] = None,
    backend: Annotated[str | None, BackendOption] = None,
) -> None:
    """Serve a page to search in the index of RUN, and an API; Ctrl-C or SIGTERM stops it.

    The page shows the nearest items of an image, the threshold on a slider, the classes and a map.
    RUN may be a folder that export --format onnx has written, which is served without Keras.
    """
    with messages(None):
        missing = [one for one in _NEEDED if importlib.util.find_spec(one) is None]
        if missing:
            raise ImportError(f"Serving needs {missing[0]}: pip install 'kinfold[serve]'")
        from kinfold_bundle import is_bundle  # which imports NumPy

        if not is_bundle(run):
            use_backend_of(run, backend)
        import kinfold_serving

        token = token or os.environ.get("KINFOLD_TOKEN") or None
        kinfold_serving.serve(run, host, port, token, _tell)


def _tell(text: str) -> None:
    print(printable(text), flush=True)
