"""A run in other formats: the same embeddings and answers, with Keras and without."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import kinfold
import kinfold_cli
from alone import WITHOUT_KERAS
from kinfold.shipping import FORMATS, export, formats, parity
from kinfold_bundle import Bundle
from runs import SIDE, indexed_run, write_photos, write_vectors

BACKEND = keras.backend.backend()
OURS = [kind for kind, form in FORMATS.items() if form.backend == BACKEND]
torch_only = pytest.mark.skipif(BACKEND != "torch", reason="ONNX is written by PyTorch")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return indexed_run(photos, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    export(run, out)
    return out


@pytest.mark.parametrize("kind", OURS)
def test_finds_the_same_in_batches_of_any_size(kind: str, run: Path, tmp_path: Path) -> None:
    found = export(run, tmp_path / "bundle", kind)
    assert found.cosine[1] > 0.9999
    assert found.recall[0] == found.recall[1]
    assert found.far is not None
    assert found.far[0] == pytest.approx(found.far[1], abs=1e-3)
    embeds = FORMATS[kind].opened(tmp_path / "bundle" / FORMATS[kind].file)
    x = np.random.default_rng(0).integers(0, 256, (7, SIDE, SIDE, 3), dtype=np.uint8)
    expected = kinfold.load(run).embed(x)
    for count in (7, 1, 3):
        np.testing.assert_allclose(embeds(x[:count]), expected[:count], atol=2e-5)
    about = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert about["shape"] == [SIDE, SIDE, 3]
    assert about["dtype"] == "uint8"


NARROW = [
    (kind, precision)
    for kind in OURS
    for precision in FORMATS[kind].precisions
    if precision != "float32"
]


def weights_of(bundle: Path) -> int:
    """Bytes of the file that holds the weights."""
    return max(one.stat().st_size for one in bundle.glob("model.*"))


@pytest.mark.skipif(not NARROW, reason="this backend writes no smaller formats")
def test_fewer_bits_are_smaller_and_say_what_they_lose(run: Path, tmp_path: Path) -> None:
    for kind, precision in NARROW:
        whole, out = tmp_path / kind, tmp_path / f"{kind} {precision}"
        if not whole.exists():
            export(run, whole, kind)
        found = export(run, out, kind, precision)
        assert parity.COSINE[precision] < found.cosine[1] < 1.0
        assert weights_of(out) < 0.6 * weights_of(whole)
        assert json.loads((out / "parity.json").read_text())["cosine"][1] == found.cosine[1]
        embeds = FORMATS[kind].opened(out / FORMATS[kind].file)
        x = np.random.default_rng(0).integers(0, 256, (7, SIDE, SIDE, 3), dtype=np.uint8)
        assert embeds(x).dtype == np.float32
        np.testing.assert_allclose(embeds(x[:3]), embeds(x)[:3], atol=1e-2)


# Opens a model three times and closes them, the oldest first; then a child ends.
OPENED = """
import signal, subprocess, sys
from pathlib import Path
from kinfold.shipping import FORMATS
signal.signal(signal.SIGCHLD, lambda *_: None)  # as PyTorch's loader does
opened = [FORMATS["openvino"].opened(Path(sys.argv[1])) for _ in range(3)]
while opened:
    del opened[0]
subprocess.run(["true"], check=True)
print("alive")
"""


@torch_only
def test_a_child_may_end_after_models_were_closed(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "bundle", "openvino")
    model = tmp_path / "bundle" / FORMATS["openvino"].file
    done = subprocess.run(
        [sys.executable, "-c", OPENED, str(model)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


@torch_only
def test_answers_as_the_run(run: Path, bundle: Path, photos: Path) -> None:
    files = [photos / f"class {k}" / "0.png" for k in range(6)]
    ours, theirs = kinfold.load(run).match(files, k=4), Bundle(bundle).search(files, k=4)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.label, mine.known) == (other.label, other.known)
        assert mine.neighbours.ids.tolist() == other.neighbours.ids.tolist()
        assert mine.neighbours.metadata.tolist() == other.neighbours.metadata.tolist()
        np.testing.assert_allclose(mine.neighbours.distances, other.neighbours.distances, atol=1e-5)
        assert mine.threshold == pytest.approx(other.threshold)
    strange = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), "uint8"))
    (mine,), (other,) = kinfold.load(run).match(strange), Bundle(bundle).search(strange)
    assert (mine.label, mine.known) == (other.label, other.known)
    assert Bundle(bundle).search(files[0], k=1000)[0].neighbours.ids.shape == (144,)


@torch_only
def test_the_command_needs_no_keras(bundle: Path, photos: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_KERAS, "search", str(bundle)]
    done = subprocess.run(
        [*command, str(photos / "class 3" / "1.png"), "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["label"] == "class 3"
    done = subprocess.run([*command, "nothing.png"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "nothing.png cannot be read: no such file" in done.stderr


def command(*arguments: Any) -> Any:
    environment = {"KERAS_BACKEND": BACKEND}
    return CliRunner().invoke(kinfold_cli.app, [str(one) for one in arguments], env=environment)


@torch_only
def test_the_command_writes_a_bundle(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "bundle"
    done = command("export", run, "--out", out, "--backend", "torch")
    assert done.exit_code == 0, done.output
    assert "recall@1" in done.output
    assert sorted(one.name for one in out.iterdir()) == [
        "bundle.json", "index", "model.onnx", "parity.json", "thresholds.json",
    ]  # fmt: skip
    again = command("export", run, "--out", out, "--backend", "torch")
    assert again.exit_code == 2
    assert "is there already" in again.output


@torch_only
def test_what_is_too_far_off_is_not_kept(run: Path, tmp_path: Path, monkeypatch) -> None:
    right = FORMATS["onnx"]

    def opened(path: Path) -> formats.Embeds:
        embeds = right.opened(path)
        return lambda x: np.roll(embeds(x), 1, axis=0)

    monkeypatch.setitem(FORMATS, "onnx", right._replace(opened=opened))
    with pytest.raises(ValueError, match="not kept: an example's embedding differs"):
        export(run, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_refused(run: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ValueError, match="The formats are onnx, saved_model"):
        export(run, tmp_path / "bundle", "onyx")
    with pytest.raises(ValueError, match=r"torch is written in float32\. Received: 'int8'"):
        export(run, tmp_path / "bundle", "torch", "int8")
    other = "torch" if BACKEND == "tensorflow" else "saved_model"
    with pytest.raises(ValueError, match=r"is written by .*: add --backend"):
        export(run, tmp_path / "bundle", other)
    kind = "saved_model" if BACKEND == "tensorflow" else "onnx"
    monkeypatch.setitem(
        FORMATS, kind, FORMATS[kind]._replace(backend=BACKEND, packages={"nonesuch": "nonesuch"})
    )
    with pytest.raises(ValueError, match="needs more packages: pip install nonesuch"):
        export(run, tmp_path / "bundle", kind)
    assert not list(tmp_path.iterdir())


@torch_only
def test_a_layer_without_a_form_is_told_in_a_sentence(run: Path, tmp_path: Path, monkeypatch):
    def fails(model: keras.Model, path: Path, examples: np.ndarray) -> None:
        raise RuntimeError("no rule for Oddity\nand more")

    monkeypatch.setitem(FORMATS, "onnx", FORMATS["onnx"]._replace(precisions={"float32": fails}))
    with pytest.raises(ValueError, match="could not be written as onnx: no rule for Oddity"):
        export(run, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@torch_only
def test_vectors_without_an_index(tmp_path: Path) -> None:
    from kinfold.training.commands import train
    from runs import settings_for

    train(settings_for(write_vectors(tmp_path / "v.npz")), tmp_path / "run")
    export(tmp_path / "run", tmp_path / "bundle")
    used = Bundle(tmp_path / "bundle")
    x = np.random.default_rng(0).standard_normal((5, 8)).astype("float32")
    np.testing.assert_allclose(used.embed(x), kinfold.load(tmp_path / "run").embed(x), atol=1e-5)
    with pytest.raises(ValueError, match="not images"):
        used.embed("picture.png")
    with pytest.raises(FileNotFoundError, match="the run had none"):
        used.search(x)


def test_a_bundle_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no bundle in"):
        Bundle(tmp_path)
    for text, message in (
        ("{", "is damaged"),
        ('{"format": 9, "shape": [1], "kind": "onnx"}', "format is 9"),
        ('{"format": 2, "shape": [1], "kind": "torch"}', "in the format 'torch'"),
    ):
        (tmp_path / "bundle.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            Bundle(tmp_path)


def test_parity_counts_by_hand() -> None:
    """Three classes at right angles; one exported query of six turned to another class."""
    ours = np.repeat(np.eye(3, dtype="float32"), 2, axis=0)
    theirs, labels = ours.copy(), np.repeat([4, 7, 9], 2)
    theirs[0] = ours[2]
    found = parity.compare(ours, theirs, labels, 0.5)
    assert found.cosine == (pytest.approx(5 / 6), 0.0)
    assert found.recall == (1.0, pytest.approx(5 / 6))
    assert found.far == (0.0, pytest.approx(2 / 24))
    assert found.recall_change is not None
    assert found.recall_change[0] < 0.0
    assert "cosine 0.0000" in (found.fault("int8") or "")
    same = parity.compare(ours, ours, labels, None)
    assert same.fault("float32") is None
    assert same.far is None
