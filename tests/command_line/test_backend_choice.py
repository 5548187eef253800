"""Which backend Keras gets; no test here computes anything, so one backend is enough for all."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import _kinfold_backend
import alone

pytestmark = pytest.mark.once

EVERYTHING = "jax torch tensorflow"


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Choose as a process does that has not imported Keras; return KERAS_BACKEND afterwards."""

    def choose(
        installed: str, asked: str | None = None, named: str = "", configured: str | None = None
    ) -> str:
        monkeypatch.setenv("KERAS_BACKEND", named)
        (tmp_path / "keras.json").unlink(missing_ok=True)
        if configured is not None:
            (tmp_path / "keras.json").write_text(configured)
        found = SimpleNamespace(origin="somewhere")
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: found if name in installed.split() else None
        )
        _kinfold_backend.use(asked)
        return os.environ["KERAS_BACKEND"]

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "keras")
    return choose


def test_what_is_asked_comes_first_and_the_environment_second(use: Callable[..., str]) -> None:
    assert use(EVERYTHING, asked="torch", named="jax") == "torch"
    assert use(EVERYTHING, named="jax", configured='{"backend": "tensorflow"}') == "jax"


@pytest.mark.parametrize(
    ("installed", "configured", "chosen"),
    [
        (EVERYTHING, None, ""),  # as Keras alone, which then writes tensorflow into keras.json
        (EVERYTHING, '{"backend": "torch"}', ""),
        ("jax torch", None, "jax"),
        ("torch", '{"backend": "tensorflow"}', "torch"),
        ("tensorflow", '{"backend": "jax"}', "tensorflow"),
        ("torch tensorflow", '{"backend": "openvino"}', "tensorflow"),
        ("jax", "no json", "jax"),
        ("jax", "[]", "jax"),
    ],
)
def test_without_a_wish_a_choice_is_made_and_said_only_where_keras_would_fail(
    use: Callable[..., str],
    installed: str,
    configured: str | None,
    chosen: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert use(installed, configured=configured) == chosen
    said = capsys.readouterr().err
    assert said.count("\n") == bool(chosen)
    assert f"Keras uses {chosen}" in said if chosen else said == ""


def test_a_backend_that_is_missing_or_unknown_is_one_sentence(use: Callable[..., str]) -> None:
    with pytest.raises(ImportError, match=r"No backend for Keras is installed.*pip install jax$"):
        use("")
    for wish, received in (("asked", "'{}'"), ("named", "KERAS_BACKEND={}")):
        with pytest.raises(ImportError, match=r"torch is not installed: pip install torch.*=jax"):
            use("jax", **{wish: "torch"})
        for name, end in (("pytorch", r"\. Did you mean torch\?$"), ("numpy", r"\.$")):
            with pytest.raises(
                ValueError, match="Expected jax, torch or.*" + received.format(name) + end
            ):
                use("jax torch", **{wish: name})


def test_an_empty_folder_is_no_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "left_by_pip").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not _kinfold_backend.is_installed("left_by_pip")
    assert _kinfold_backend.is_installed("pytest")


def test_where_keras_is_imported_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "nonsense")
    _kinfold_backend.use()
    assert os.environ["KERAS_BACKEND"] == "nonsense"


def test_importing_kinfold_ends_in_one_sentence_where_it_cannot_run(tmp_path: Path) -> None:
    result = alone.python("import kinfold", tmp_path, ("jax",), KERAS_BACKEND="torch")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "ImportError: The backend torch is not installed: pip install torch, or set "
        "KERAS_BACKEND=jax, which is installed."
    )
    assert result.stderr.count("Traceback") == 1  # no chain of two
