"""Python processes that find one backend alone, as in a new environment, and no settings."""

import os
import subprocess
import sys
from pathlib import Path

import kinfold

BACKENDS = ("jax", "tensorflow", "torch")

# Runs the command line where Keras and its backends cannot be imported.
WITHOUT_KERAS = """
import sys

class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("keras", "torch", "jax", "tensorflow", "kinfold"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuses())
import kinfold_cli
kinfold_cli.main()
"""

# Python imports a module of this name at its start.
_HIDE = """
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] in {hidden}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


def python(
    script: str, folder: Path, installed: tuple[str, ...], **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script in `folder`, in a Python that finds the backends in `installed` only."""
    hidden = set(BACKENDS) - set(installed)
    (folder / "path").mkdir(exist_ok=True)
    (folder / "path" / "sitecustomize.py").write_text(_HIDE.format(hidden=hidden))
    outer = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    source = Path(kinfold.__file__).parent.parent
    inner = {
        "PYTHONPATH": os.pathsep.join(map(str, (folder / "path", source))),
        "KERAS_HOME": str(folder / "keras"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**outer, **inner, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
