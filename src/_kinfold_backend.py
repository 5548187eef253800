"""The choice of Keras's backend, before Keras is imported and fixes it; shared with `kinfold_cli`.

This module stands beside the package and imports neither Keras nor a backend. Keras alone takes
KERAS_BACKEND, else the backend in keras.json, else TensorFlow, and fails if that is not installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

from _kinfold_text import did_you_mean

# Keras's default comes first. Keras also writes that default into keras.json when it first runs,
# so any other order would give the first process one backend and all later ones another.
BACKENDS = ("tensorflow", "jax", "torch")


def use(asked: str | None = None) -> None:
    """Make Keras use a backend that is installed: `asked`, else the configured, else the first.

    If Keras is already imported, nothing changes. If the choice is not what Keras alone would
    take, one line on stderr says so.

    Args:
        asked: "jax", "torch" or "tensorflow", or None for no wish.

    Raises:
        ValueError: the backend is unknown, or Keras already uses another than `asked`.
        ImportError: the backend is not installed, or none is.
    """
    if "keras" in sys.modules:
        _check_used(asked)
        return
    name = find(asked)
    configured = _configured()
    if asked is not None or os.environ.get("KERAS_BACKEND"):
        os.environ["KERAS_BACKEND"] = name
    elif name != configured:
        os.environ["KERAS_BACKEND"] = name
        known = configured in BACKENDS
        why = f"{configured} is not installed" if known else f"Kinfold has no {configured} backend"
        print(
            f"kinfold: Keras uses {name}, because {why}. Set KERAS_BACKEND={name} to choose it "
            "yourself.",
            file=sys.stderr,
            flush=True,
        )


def find(asked: str | None = None) -> str:
    """Return the backend that `use` takes if Keras is not imported yet; raises as it does."""
    if asked is not None:
        _check_known(asked, repr(asked))
    wish = asked or os.environ.get("KERAS_BACKEND")
    if wish:
        _check_known(wish, f"KERAS_BACKEND={wish}")
        if not is_installed(wish):
            raise ImportError(_not_installed(wish))
        return wish
    configured = _configured()
    if configured in BACKENDS and is_installed(configured):
        return configured
    name = _first_installed()
    if name is None:
        raise ImportError(
            "No backend for Keras is installed. Install one of jax, torch and tensorflow: "
            "pip install jax"
        )
    return name


def of_run(run: Path) -> str | None:
    """The backend of a run, or None where there is none to read; `training` then says so."""
    try:
        name = json.loads((run / "config.json").read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name if name in BACKENDS else None


def for_run(run: Path, asked: str | None) -> str | None:
    """The backend to ask for where a run's model is used: its own, unless another is asked for."""
    own = of_run(run)
    free = asked is None and "KERAS_BACKEND" not in os.environ
    return own if free and own and is_installed(own) else asked


def is_installed(name: str) -> bool:
    """Return whether the package of a backend can be imported, without importing it."""
    spec = importlib.util.find_spec(name)
    # pip may leave an empty folder behind, which Python finds as a package without an origin.
    return spec is not None and spec.origin is not None


def _first_installed() -> str | None:
    return next((name for name in BACKENDS if is_installed(name)), None)


def _configured() -> str:
    """The backend that Keras takes without KERAS_BACKEND: keras.json's, or its default."""
    user = os.path.expanduser("~")
    home = os.environ.get("KERAS_HOME")
    home = home or os.path.join(user if os.access(user, os.W_OK) else "/tmp", ".keras")
    try:
        text = Path(os.path.expanduser(home), "keras.json").read_text(encoding="utf-8")
        return str(json.loads(text).get("backend", BACKENDS[0]))
    except (OSError, ValueError, AttributeError):
        return BACKENDS[0]


def _check_known(name: str, received: str) -> None:
    if name in BACKENDS:
        return
    raise ValueError(
        f"Unknown backend. Expected jax, torch or tensorflow. Received: {received}."
        + did_you_mean(name, BACKENDS)
    )


def _check_used(asked: str | None) -> None:
    if asked is None:
        return
    _check_known(asked, repr(asked))
    import keras

    used = keras.backend.backend()
    if asked != used:
        raise ValueError(
            f"Keras already uses {used} in this process. Set KERAS_BACKEND={asked} before it "
            "starts."
        )


def _not_installed(name: str) -> str:
    other = _first_installed()
    return f"The backend {name} is not installed: pip install {name}" + (
        f", or set KERAS_BACKEND={other}, which is installed." if other else ""
    )
