"""The order of the rooms, and what importing the package pulls in."""

import ast
import graphlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kinfold

SRC = Path(kinfold.__file__).parent

# Each room imports from those before it only.
ROOMS = [
    "core", "distances", "distributed", "streaming", "losses", "matryoshka", "memory",
    "remembering", "model", "layers", "datasets", "metrics", "search", "thresholds", "batches",
    "callbacks", "encoders", "training", "trained", "shipping", "compat",
]  # fmt: skip

KERNELS = ("kinfold.streaming.fused.pallas", "kinfold.streaming.fused.triton")
HEAVY = {"PIL", "matplotlib", "pyarrow", "rich", "sklearn", "typer", "jax", "torch", "tensorflow"}


def room_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports(path: Path) -> set[Path]:
    """The files of the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kinfold":
            found |= {file_of(node.module, alias.name) for alias in node.names}
    return found - {path, SRC / "__init__.py"}


def file_of(module: str, name: str) -> Path:
    """Where `from module import name` takes the name from."""
    folder = SRC.parent.joinpath(*module.split("."))
    for path in (folder / f"{name}.py", folder / name / "__init__.py", folder.with_suffix(".py")):
        if path.exists():
            return path
    return folder / "__init__.py"


@pytest.mark.once
def test_rooms_import_only_upward() -> None:
    seen = set()
    for path in sorted(SRC.rglob("*.py")):
        room = room_of(path)
        if room == "__init__":
            continue
        assert room in ROOMS, f"{path} is in a room that the order does not name"
        seen.add(room)
        for other in imports(path):
            assert ROOMS.index(room_of(other)) <= ROOMS.index(room), f"{path} imports {other}"
    assert {"losses", "metrics", "training"} <= seen


@pytest.mark.once
def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = {path: imports(path) for path in SRC.rglob("*.py")}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
    training = SRC / "training"
    assert order.index(SRC / "core" / "checks.py") < order.index(training / "commands.py")
    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter({**graph, training: {training}}).static_order())


def test_what_importing_and_a_loss_load() -> None:
    """No heavy package but the backend's, and no kernels where no GPU is."""
    script = (
        "import keras, sys, numpy as np\n"
        "before = set(sys.modules)\n"
        "import kinfold, kinfold.compat.tensorflow_addons, kinfold.compat.tensorflow_similarity\n"
        f"new = {{name.split('.')[0] for name in set(sys.modules) - before}} & {HEAVY!r}\n"
        "print('loaded:', sorted(new), kinfold.losses.CircleLoss().name)\n"
        f"KERNELS = {KERNELS!r}\n"
        "x = keras.ops.convert_to_tensor(np.eye(4, dtype='float32'))\n"
        "kinfold.losses.CircleLoss()(np.array([0, 0, 1, 1]), x)\n"
        "kinfold.losses.InfoNCELoss()(None, x, ref_embeddings=x)\n"
        "print(sorted(name for name in sys.modules if name.startswith(KERNELS)))\n"
    )
    none = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    out = subprocess.run(
        [sys.executable, "-c", script], env=none, capture_output=True, text=True, check=True
    )
    assert out.stdout.splitlines() == ["loaded: [] circle_loss", "[]"]
    for name in KERNELS:
        assert SRC.parent.joinpath(*name.split("."), "__init__.py").exists()


@pytest.mark.once
def test_every_public_name_is_documented() -> None:
    import inspect

    from kinfold import (
        batches,
        callbacks,
        datasets,
        distances,
        layers,
        losses,
        metrics,
        search,
        shipping,
        thresholds,
        trained,
    )
    from kinfold.compat.tensorflow_addons import losses as tfa
    from kinfold.compat.tensorflow_similarity import losses as tfsim

    ours = (losses, layers, distances, metrics, batches, callbacks, datasets, tfa, tfsim)
    for module in (*ours, search, thresholds, trained, shipping):
        names = [n for n, v in vars(module).items() if not n.startswith("_") and is_ours(v)]
        assert names, module
        for name in names:
            doc = inspect.getdoc(getattr(module, name))
            assert doc, f"{module.__name__}.{name} has no docstring"


def is_ours(value: object) -> bool:
    return (isinstance(value, type) or callable(value)) and str(
        getattr(value, "__module__", "")
    ).startswith("kinfold")
