"""A run in use: the same embeddings as in training, an index, a decision, the four commands."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import kinfold
import kinfold_cli
from kinfold import trained
from kinfold.core import files
from kinfold.datasets import parts
from kinfold.trained import embedding_file
from kinfold.training import evaluation
from kinfold.training.progress import Progress
from runs import CLASSES, EACH, SIDE, indexed_run, run_on_vectors, write_photos


class Told(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the photos, with an index of them."""
    return indexed_run(photos, tmp_path_factory.mktemp("runs") / "run")


def kinfold_command(*arguments: Any) -> Any:
    backend = {"KERAS_BACKEND": keras.backend.backend()}
    return CliRunner().invoke(kinfold_cli.app, [str(one) for one in arguments], env=backend)


def test_the_same_file_gives_the_same_embedding_as_in_training(run: Path, photos: Path) -> None:
    used = kinfold.load(run)
    split = parts(photos, (SIDE, SIDE))["all"]
    expected = evaluation.embed(used.model, split.x)
    paths = [photos / name for name in split.files or ()]
    np.testing.assert_allclose(used.embed(paths), expected, atol=1e-6)
    np.testing.assert_allclose(used.embed(str(paths[0])), expected[:1], atol=1e-6)
    images = [Image.open(path) for path in paths[:3]]
    np.testing.assert_allclose(used.embed(images), expected[:3], atol=1e-6)
    np.testing.assert_allclose(used.embed(images[0]), expected[:1], atol=1e-6)
    np.testing.assert_allclose(used.embed(split.x[:5]), expected[:5], atol=1e-6)
    np.testing.assert_allclose(used.embed(list(split.x[:5])), expected[:5], atol=1e-6)
    np.testing.assert_allclose(used.embed(split.x[:4] / 255.0), expected[:4], atol=1e-4)


def test_any_mode_and_orientation_of_a_picture(run: Path, photos: Path, tmp_path: Path) -> None:
    used = kinfold.load(run)
    image = Image.open(photos / "class 0" / "0.png")
    expected = used.embed([image])
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_allclose(used.embed(tmp_path / "turned.png"), expected, atol=1e-6)
    np.testing.assert_allclose(used.embed(Image.open(tmp_path / "turned.png")), expected, atol=1e-6)
    np.testing.assert_allclose(used.embed(image.convert("RGBA")), expected, atol=1e-6)
    large = image.resize((64, 64), Image.Resampling.NEAREST)
    assert np.abs(used.embed(large) - expected).max() < 0.2
    assert used.embed(image.convert("L")).shape == expected.shape


def test_batches_are_filled_up_to_few_sizes(run: Path) -> None:
    used = kinfold.load(run)
    x = np.random.default_rng(0).integers(0, 255, (300, SIDE, SIDE, 3), dtype=np.uint8)
    whole = used.embed(x)
    sizes = []
    real = evaluation.predicted
    with mock.patch.object(
        evaluation, "predicted", lambda model, x: sizes.append(len(x)) or real(model, x)
    ):
        for n in (1, 2, 8, 9, 60, 65, 300):
            np.testing.assert_allclose(used.embed(x[:n]), whole[:n], atol=1e-5)
    assert set(sizes) == {1, 8, 64, 256}


@pytest.mark.parametrize(
    ("examples", "error", "message"),
    [
        (["nowhere.png"], ValueError, r"nowhere.png cannot be read: no such file"),
        ([], ValueError, "There is nothing to embed"),
        (np.zeros((2, 9, 9, 3)), ValueError, r"shape \[n, 16, 16, 3\]. Received \[2, 9, 9, 3\]"),
        ([np.zeros((2, 2)), np.zeros(3)], ValueError, "several shapes or kinds"),
    ],
)
def test_what_cannot_be_embedded(
    run: Path, examples: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        kinfold.load(run).embed(examples)


def test_a_match_and_an_unknown(run: Path, photos: Path, tmp_path: Path) -> None:
    used = kinfold.load(run)
    known = used.match(photos / "class 3" / "2.png", far=0.1)[0]
    assert (known.label, known.known) == ("class 3", True)
    assert known.neighbours.ids[0] == "class 3/2.png"
    assert known.neighbours.metadata[0]["file"] == str((photos / "class 3/2.png").resolve())
    assert known.distance == pytest.approx(0, abs=1e-6)
    stripes = np.zeros((SIDE, SIDE, 3), np.uint8)
    stripes[:, ::2] = 255
    strange = used.match(Image.fromarray(stripes), far=0.1)[0]
    assert (strange.label, strange.known) == ("unknown", False)
    assert strange.distance > strange.threshold
    assert len(used.index) == CLASSES * EACH
    assert used.thresholds.pairs(0.05).far <= 0.05
    first = used.threshold(0.1)
    assert used.threshold(0.1) is first
    used.index.remove(["class 3/2.png"])
    assert used.threshold(0.1) is not first
    assert used.match(photos / "class 3" / "2.png")[0].neighbours.ids[0] != "class 3/2.png"


def test_a_run_says_what_its_threshold_does(run: Path) -> None:
    facts = files.read_json(run / "metrics.json")["threshold"]
    assert 0 < facts["far"] <= 0.01
    assert set(facts["test"]) == {"far", "recall"}
    assert facts["said"].startswith("The threshold, set on the validation classes.")
    assert "The threshold, set on the validation classes." in (run / "report.html").read_text()
    assert kinfold.load(run).thresholds.pairs().distance == pytest.approx(facts["distance"])


def test_embeddings_in_a_file(run: Path, photos: Path, tmp_path: Path) -> None:
    told = Told()
    out = trained.embed(run, str(photos), tmp_path / "e.parquet", told)
    (split,) = parts(out).values()
    assert len(split) == CLASSES * EACH
    assert set(split.names) == {f"class {k}" for k in range(CLASSES)}
    paths = [photos / "class 0" / "0.png"]
    np.testing.assert_allclose(split.x[:1], kinfold.load(run).embed(paths), atol=1e-6)
    assert told.lines == [f"{CLASSES * EACH:,} embeddings of 8 numbers are in {out}."]
    assert [path.name for path in tmp_path.iterdir()] == ["e.parquet"]


def test_an_interrupted_embedding_goes_on(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_file, "_BLOCKS", 1)
    monkeypatch.setattr(embedding_file, "BLOCK", 40)
    whole = trained.embed(run, str(photos), tmp_path / "whole.parquet").read_bytes()
    write, done = embedding_file._write_part, []

    def until_the_third(*given: Any) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(given[0].name)
        write(*given)

    with (
        mock.patch.object(embedding_file, "_write_part", until_the_third),
        pytest.raises(KeyboardInterrupt),
    ):
        trained.embed(run, str(photos), tmp_path / "e.parquet")
    assert not (tmp_path / "e.parquet").exists()
    later = []
    with mock.patch.object(
        embedding_file, "_write_part", lambda *given: later.append(given[0].name) or write(*given)
    ):
        trained.embed(run, str(photos), tmp_path / "e.parquet")
    assert len(done) == 2
    assert len(later) == 2
    assert not set(done) & set(later)
    assert (tmp_path / "e.parquet").read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.parquet", "whole.parquet"]


def test_parts_of_other_data_are_not_gone_on_with(run: Path, photos: Path, tmp_path: Path) -> None:
    for name, source in (("one", "class 0"), ("two", "class 1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes((photos / source / "0.png").read_bytes())
    out = tmp_path / "e.parquet"
    with (
        mock.patch.object(files, "atomic_write", side_effect=[KeyboardInterrupt]),
        pytest.raises(KeyboardInterrupt),
    ):
        trained.embed(run, str(tmp_path / "one"), out)
    stop = mock.patch.object(embedding_file, "_schema", side_effect=KeyboardInterrupt)
    with stop, pytest.raises(KeyboardInterrupt):
        trained.embed(run, str(tmp_path / "one"), out)
    trained.embed(run, str(tmp_path / "two"), out)
    import pyarrow.parquet

    (found,) = pyarrow.parquet.read_table(out).to_pydict()["embedding"]
    np.testing.assert_allclose(found, kinfold.load(run).embed(tmp_path / "two" / "x.png")[0])


def test_folders_without_classes_and_single_files(run: Path, photos: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    (flat / "inner").mkdir(parents=True)
    (flat / "a.png").write_bytes((photos / "class 1" / "0.png").read_bytes())
    (flat / "inner" / "b.png").write_bytes((photos / "class 2" / "0.png").read_bytes())
    (flat / "bad.png").write_text("no picture")
    told = Told()
    out = trained.embed(run, str(flat), tmp_path / "e.parquet", told)
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(out).to_pydict()
    assert rows["path"] == ["a.png", "inner/b.png"]
    assert rows["label"] == [None, "inner"]
    assert told.lines[0].startswith("Left out: unreadable (1): bad.png (cannot identify")
    one = trained.embed(run, str(flat / "a.png"), tmp_path / "one.parquet")
    assert pyarrow.parquet.read_table(one).to_pydict()["path"] == ["a.png"]


def test_an_index_grows_and_keeps_files_of_one_name_apart(
    photos: Path, run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    for path in run.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    with pytest.raises(FileNotFoundError, match="There is no index in"):
        trained.index(copy, str(photos), add=True)
    first, second = tmp_path / "one" / "class 0", tmp_path / "two" / "class 0"
    for folder, source in ((first, "0.png"), (second, "1.png")):
        folder.mkdir(parents=True)
        (folder / "x.png").write_bytes((photos / "class 0" / source).read_bytes())
    trained.index(copy, str(first.parent))
    told = Told()
    found = trained.index(copy, str(second.parent), told, add=True)
    assert told.lines == [f"The index of {copy} holds 1 new, 2 in all items."]
    assert found.ids.tolist() == ["class 0/x.png", str((second / "x.png").resolve())]
    again = trained.index(copy, str(second.parent), add=True)  # the same file takes its own place
    assert len(again) == 2
    trained.index(copy, str(photos), told, engine="faiss")
    assert told.lines[-2].startswith("Building what faiss searches in")
    assert len(list((copy / "index").glob("faiss-*.index"))) == 1  # for the searches to come


def test_an_index_of_another_model_is_refused(run: Path, photos: Path, tmp_path: Path) -> None:
    used = kinfold.load(run)
    for variable in used.model.variables:
        variable.assign(variable * 1.5)
    with pytest.raises(ValueError, match="embeddings of another model"):
        _ = used.index
    with pytest.raises(ValueError, match="of another model than the run's"):
        _ = used.thresholds


def test_a_run_of_vectors(tmp_path: Path) -> None:
    x, y = run_on_vectors(tmp_path / "v.npz", tmp_path / "run")
    found = trained.index(tmp_path / "run", str(tmp_path / "v.npz"))
    assert len(found) == 120
    used = kinfold.load(tmp_path / "run")
    np.savez(tmp_path / "w.npz", x=x[:12], y=y[:12])  # other data, whose rows have no names either
    more = trained.index(tmp_path / "run", str(tmp_path / "w.npz"), add=True)
    assert len(more) == 132
    trained.index(tmp_path / "run", str(tmp_path / "v.npz"))
    match = used.match(x[:2], far=0.2)
    assert [one.label for one in match] == ["0", "0"]
    assert used.embed(x).shape == (120, used.model.output_shape[-1])
    with pytest.raises(TypeError, match="takes vectors of 8 numbers, not images"):
        used.embed("photo.png")
    with pytest.raises(ValueError, match="takes vectors, and this command image files"):
        trained.search(tmp_path / "run", ["photo.png"])
    out = trained.embed(tmp_path / "run", str(tmp_path / "v.npz"), tmp_path / "e.parquet")
    (split,) = parts(out).values()
    assert len(split) == 120


def test_calibrating_on_other_data(run: Path, photos: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    for path in run.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    told = Told()
    found = trained.calibrate(copy, str(photos), 0.05, told)
    assert found.far <= 0.05
    assert "of these classes were trained on" in told.lines[0]
    assert kinfold.load(copy).thresholds.pairs(0.05).distance == found.distance
    assert len(kinfold.load(copy).thresholds.labels) == CLASSES * EACH
    (copy / "calibration.npz").unlink()
    with pytest.raises(FileNotFoundError, match="is not calibrated yet"):
        _ = kinfold.load(copy).thresholds


def test_searching_by_the_command_line(run: Path, photos: Path, tmp_path: Path) -> None:
    image = photos / "class 5" / "1.png"
    said = kinfold_command("search", run, image, "--far", "0.1", "-k", "3")
    assert said.exit_code == 0, said.output
    lines = said.stdout.splitlines()
    assert lines[0].startswith(f"{image}: class 5  (threshold 0.")
    assert lines[1].split()[1:3] == ["class", "5/1.png"]
    assert len(lines) == 4
    # One stranger in ten is taken for known here: so take the strangest of some.
    strangers = [
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), "uint8"))
        for i in range(8)
    ]
    strangers += [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "lime", "blue")]
    used = kinfold.load(run)
    away = used.index.search(used.embed(strangers), k=1).distances[:, 0]
    strangers[int(np.argmax(away))].save(tmp_path / "noise.png")
    page = tmp_path / "page.html"
    said = kinfold_command(
        "search", run, image, tmp_path / "noise.png", "--far", "0.1", "--json", "--html", page
    )
    assert said.exit_code == 3, said.output
    rows = json.loads(said.stdout)
    assert [row["known"] for row in rows] == [True, False]
    assert rows[1]["label"] == "unknown"
    assert rows[0]["neighbours"][0]["id"] == "class 5/1.png"
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 12
    assert "unknown" in text
    said = kinfold_command("search", run, tmp_path / "nothing.png")
    assert said.exit_code == 2
    assert said.stderr.startswith("error: ")
    assert len(said.stderr.splitlines()) == 1


def test_the_other_commands(run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.parquet"
    assert kinfold_command("embed", run, photos, "--out", out).exit_code == 0
    assert out.exists()
    bad = kinfold_command("embed", run, photos, "--out", tmp_path / "e.csv")
    assert (bad.exit_code, bad.stderr.count("\n")) == (2, 1)
    assert "name a file e.parquet" in bad.stderr
    bad = kinfold_command("embed", run, tmp_path / "nothing", "--out", out)
    assert (bad.exit_code, bad.stderr.count("\n")) == (2, 1)
    bad = kinfold_command("search", run, photos / "class 0/0.png", "--html", tmp_path / "no/p.html")
    assert (bad.exit_code, bad.stderr.count("\n")) == (2, 1)
    assert "There is no folder" in bad.stderr
    bad = kinfold_command("index", run, photos, "--add", "--compress", "int8")
    assert (bad.exit_code, bad.stderr.count("\n")) == (2, 1)
    bad = kinfold_command("index", run, photos, "--engine", "fais")
    assert bad.exit_code == 2
    assert "Did you mean faiss" in bad.stderr


def test_names_are_escaped_in_the_page(run: Path, photos: Path, tmp_path: Path) -> None:
    evil = tmp_path / "<script>alert(1)</script>.png"
    (tmp_path / "<script>alert(1)<").mkdir()
    evil.write_bytes((photos / "class 0" / "0.png").read_bytes())
    trained.search(run, [evil], html=tmp_path / "page.html")
    assert "<script>" not in (tmp_path / "page.html").read_text()


@pytest.mark.once
def test_importing_kinfold_does_not_import_training() -> None:
    script = "import sys, kinfold; print('kinfold.training' in sys.modules, callable(kinfold.load))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"]
