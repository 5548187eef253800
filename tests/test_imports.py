"""The order of the rooms, and what importing the package pulls in."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import kinfold

SRC = Path(kinfold.__file__).parent

# Each room imports from those before it only.
ROOMS = [
    "backends", "checks", "numerics_torch", "numerics", "squares", "distances", "pairs",
    "streaming", "losses", "memory", "batch_labels", "model", "chunks", "layers", "compat",
    "datasets", "batches", "ranking", "compared", "metrics", "collapse", "callbacks", "scaling",
    "encoders", "pretrained", "augmentation", "run_losses", "settings", "sources", "verdicts",
    "evaluation", "progress", "runs", "records", "report", "epochs", "results", "fit", "measuring",
    "training",
]  # fmt: skip

HEAVY = {"PIL", "matplotlib", "pyarrow", "rich", "sklearn", "typer", "jax", "torch", "tensorflow"}


def room_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "kinfold":
                found |= {alias.name for alias in node.names}
            elif node.module.startswith("kinfold."):
                found.add(node.module.split(".")[1])
    return found


def test_rooms_import_only_upward() -> None:
    seen = set()
    for path in sorted(SRC.rglob("*.py")):
        room = room_of(path)
        if room == "__init__":
            continue
        assert room in ROOMS, f"{path} is in a room that the order does not name"
        seen.add(room)
        for other in imports(path) & set(ROOMS):
            assert ROOMS.index(other) <= ROOMS.index(room), f"{path} imports {other}"
    assert {"losses", "metrics", "training"} <= seen


def test_importing_loads_no_heavy_package_of_its_own() -> None:
    script = (
        "import keras, sys\n"
        "before = set(sys.modules)\n"
        "import kinfold, kinfold.compat.tensorflow_addons, kinfold.compat.tensorflow_similarity\n"
        f"new = {{name.split('.')[0] for name in set(sys.modules) - before}} & {HEAVY!r}\n"
        "print('loaded:', sorted(new), kinfold.losses.CircleLoss().name)\n"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "loaded: [] circle_loss"


def test_without_a_gpu_no_kernels_are_loaded() -> None:
    script = (
        "import sys, keras, numpy as np, kinfold.losses\n"
        "x = keras.ops.convert_to_tensor(np.eye(4, dtype='float32'))\n"
        "kinfold.losses.CircleLoss()(np.array([0, 0, 1, 1]), x)\n"
        "kinfold.losses.InfoNCELoss()(None, x, ref_embeddings=x)\n"
        "kernels = ('fused_pallas', 'fused_jax', 'fused_torch', 'fused_triton')\n"
        "print(sorted(name for name in sys.modules if name.split('.')[-1] in kernels))\n"
    )
    none = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    out = subprocess.run(
        [sys.executable, "-c", script], env=none, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_every_public_name_is_documented() -> None:
    import inspect

    from kinfold import batches, callbacks, datasets, distances, layers, losses, metrics
    from kinfold.compat.tensorflow_addons import losses as tfa
    from kinfold.compat.tensorflow_similarity import losses as tfsim

    for module in (losses, layers, distances, metrics, batches, callbacks, datasets, tfa, tfsim):
        names = [n for n, v in vars(module).items() if not n.startswith("_") and is_ours(v)]
        assert names, module
        for name in names:
            doc = inspect.getdoc(getattr(module, name))
            assert doc, f"{module.__name__}.{name} has no docstring"


def is_ours(value: object) -> bool:
    return (isinstance(value, type) or callable(value)) and str(
        getattr(value, "__module__", "")
    ).startswith("kinfold")
