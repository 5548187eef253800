"""The code in the README and in docs/ runs as it stands."""

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import alone
import kinfold
import kinfold_cli
from runs import run_on_photos, write_photos

ROOT = Path(__file__).parent.parent
BACKEND = keras.backend.backend()


def code(page: Path, number: int | None = None) -> str:
    """The Python code of a page, or one block of it."""
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    assert blocks, f"{page.name} has no Python code"
    return "\n".join(blocks) if number is None else blocks[number]


def test_the_readme_runs_where_one_backend_is_installed_and_nothing_is_set(tmp_path: Path) -> None:
    # One epoch of Keras in place of three: the fonts are drawn and searched as they stand.
    done = alone.python(code(ROOT / "README.md"), tmp_path, (BACKEND,), KERAS_MAX_EPOCHS="1")
    assert done.returncode == 0, done.stderr
    assert "val_map@r" in done.stdout
    neighbours = done.stdout.splitlines()[-1]
    assert neighbours.count("'n'") >= 3, neighbours
    said = f"kinfold: Keras uses {BACKEND}, because tensorflow is not installed."
    assert (said in done.stderr) == (BACKEND != "tensorflow")


@pytest.mark.once
def test_the_commands_of_the_readme_run(tmp_path: Path, monkeypatch) -> None:
    """All but those that train anew, serve, or write ONNX, which have tests of their own."""
    monkeypatch.chdir(tmp_path)
    photos = write_photos(tmp_path / "photos")
    run_on_photos(photos, tmp_path / "runs" / "photos")
    shutil.copytree("runs/photos", "runs/again")
    for name in ("others", "known"):
        shutil.copytree(photos, name)
    shutil.copy(photos / "class 3" / "1.png", "new.jpg")
    lines = re.findall(r"^    kinfold (.*?)(?: +#.*)?$", (ROOT / "README.md").read_text(), re.M)
    done = [line for line in lines if not re.match(r"train photos|serve", line)]
    for line in done:
        found = CliRunner().invoke(kinfold_cli.app, line.split(), env={"KERAS_BACKEND": BACKEND})
        assert found.exit_code == 0, (line, found.output)
    assert {line.split()[0] for line in done} == {"index", "search", "train", "evaluate", "compare"}
    assert Path("scores.json").exists()
    assert Path("scores.html").exists()


def torchrun(script: Path, processes: int) -> str:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *command, str(script)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(BACKEND != "torch", reason="the pages start processes of PyTorch")
def test_the_loops_on_several_devices_run_under_torchrun(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    told = "import sys\nsys.stdout.write(f'trained {float(value)}\\n')\n"  # the ranks share a pipe
    script.write_text(code(ROOT / "docs" / "distributed.md", 0) + told)
    found = re.findall(r"trained (\S+)", torchrun(script, 2))
    assert len(found) == 2
    assert found[0] == found[1]

    script.write_text(code(ROOT / "docs" / "clusters.md", 0))
    one, two = (torchrun(script, processes) for processes in (1, 2))
    assert re.search(r"loss of the last global batch: \d", one)
    assert one == two


@pytest.mark.skipif(BACKEND != "jax", reason="the page starts processes of JAX")
def test_two_hosts_train_on_jax(tmp_path: Path) -> None:
    script = tmp_path / "hosts.py"
    script.write_text(code(ROOT / "docs" / "clusters.md", 1))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    hosts = [
        subprocess.Popen(
            [sys.executable, str(script), address, "2", str(process)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]
    told = [host.communicate(timeout=300)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], told
    losses = [re.findall(r"loss: (\S+)", text)[-1] for text in told]
    assert losses[0] == losses[1]


@pytest.mark.skipif(BACKEND != "jax", reason="the block is of JAX")
def test_a_mesh_of_ones_own_on_jax() -> None:
    import jax

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 4)).astype("float32"), np.arange(8) % 2
    loss = kinfold.losses.CircleLoss(normalize=True)
    given = {"jax": jax, "mesh": jax.make_mesh((1,), ("batch",)), "x": x, "y": y, "loss": loss}
    exec(code(ROOT / "docs" / "distributed.md", 1), given)
    assert float(given["value"]) == pytest.approx(float(loss(y, x)), rel=1e-5)
    assert given["gradient"].shape == x.shape


@pytest.mark.parametrize(
    ("page", "made"),
    [
        ("from_pytorch_metric_learning.md", lambda names: names["loss"].reducer.low == 0.1),
        ("from_keras.md", lambda names: names["model"].loss.gamma == 80),
        ("from_tensorflow_addons.md", lambda names: names["model"].loss.margin == 0.5),
        ("from_tensorflow_similarity.md", lambda names: names["found"]["recall@1"] > 0.5),
        ("large_batches.md", lambda names: names["model"].compiled),
        ("losses.md", lambda names: names["model"].compiled),
        ("searching.md", lambda names: 0 < names["threshold"].recall <= 1),
        ("sound.md", lambda names: names["x"].shape == (96, 64, 64, 1)),
        ("training.md", lambda names: len(names["callbacks"]) == 6),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_code_of_the_docs_runs(
    page: str, made: Callable[..., bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), "uint8")
    data = {"x": images, "y": np.repeat([0, 1], 4)}  # the reader's own
    exec(compile(code(ROOT / "docs" / page), page, "exec"), data)
    assert made(data), f"{page} did not make what it shows"
