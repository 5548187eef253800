"""Runs on data that stays where it lies: every kind of it, and what becomes of it meanwhile."""

import csv
import dataclasses
import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kinfold import training
from kinfold.core import files
from kinfold.core.stored import Stored
from kinfold.training import (
    evaluation,
    finishing,
    listing,
    measuring,
    raw_input,
    records,
    run_folder,
    sampling,
    sources,
)
from kinfold.training.commands import Settings, resume, train
from kinfold.training.run_folder import RunFolder
from runs import Crash, StopAt, contents, damage, settings_for, splits_of, write_vectors

pytestmark = pytest.mark.usefixtures("compile_once")

CLASSES, EACH, SIZE = 12, 6, 8


@pytest.fixture(autouse=True)
def quick_report(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (finishing, measuring):
        monkeypatch.setattr(
            module, "write_report", lambda path, report: path.write_text(repr(report), "utf-8")
        )


def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(CLASSES), EACH)
    x = rng.integers(0, 200, (CLASSES, SIZE, SIZE, 3))[y] + rng.integers(0, 56, (len(y), 1, 1, 3))
    return x.astype("uint8"), y


def encoded(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "photos"
    for k, (image, label) in enumerate(zip(*pictures(), strict=True)):
        (path / f"{label:02}").mkdir(parents=True, exist_ok=True)
        (path / f"{label:02}" / f"{k:03}.png").write_bytes(encoded(image))
    return path


def image_settings(path: Path, **others: Any) -> Settings:
    few = dataclasses.replace(settings_for(path), steps_per_epoch=2, epochs=2, image_size=SIZE)
    return dataclasses.replace(few, **others)


@pytest.fixture(scope="module")
def unbroken(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finishing, "write_report", lambda path, report: path.write_text("report"))
        train(image_settings(folder), out)
    return out


def weights(run: Path) -> Any:
    return contents(run)["checkpoint"]


def test_a_run_on_files_goes_on_to_the_same_weights(
    folder: Path, unbroken: Path, tmp_path: Path
) -> None:
    for settings in (image_settings(folder), image_settings(folder, cache=1.0)):
        out = tmp_path / f"run {settings.cache}"
        with pytest.raises(Crash):
            train(settings, out, progress=StopAt(2, 1, Crash()))
        resume(out)
        np.testing.assert_equal(weights(out), weights(unbroken))
    held = sum(path.stat().st_size for path in unbroken.iterdir() if path.suffix != ".keras")
    assert (unbroken / "listing.npz").stat().st_size < 20_000 < held
    assert not (unbroken / "data.npz").exists()


def in_tar(path: Path, x: np.ndarray, y: np.ndarray) -> Path:
    with tarfile.open(path / "shard-0.tar", "w") as tar:
        for k, (image, label) in enumerate(zip(x, y, strict=True)):
            for name, content in ((f"{k:03}.png", encoded(image)), (f"{k:03}.cls", b"%d" % label)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path / "shard-0.tar"


def in_parquet(path: Path, x: np.ndarray, y: np.ndarray) -> Path:
    images = [{"bytes": encoded(image), "path": f"{k}.png"} for k, image in enumerate(x)]
    table = pa.table({"image": images, "label": y})
    pq.write_table(table, path / "images.parquet", row_group_size=10)
    return path / "images.parquet"


def in_arrays(path: Path, x: np.ndarray, y: np.ndarray) -> Path:
    (path / "arrays").mkdir()
    np.save(path / "arrays" / "x.npy", x)
    np.save(path / "arrays" / "y.npy", y)
    return path / "arrays"


def in_listing(path: Path, x: np.ndarray, y: np.ndarray) -> Path:
    with open(path / "list.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        for k, (image, label) in enumerate(zip(x, y, strict=True)):
            (path / f"{k}.png").write_bytes(encoded(image))
            rows.writerow([f"{k}.png", f"{label:02}"])
    return path / "list.csv"


@pytest.mark.once
@pytest.mark.parametrize("written", [in_tar, in_parquet, in_arrays, in_listing])
def test_the_same_pictures_give_the_same_run_in_every_form(written: Any, tmp_path: Path) -> None:
    x, y = pictures()
    np.savez_compressed(tmp_path / "whole.npz", x=x, y=y)
    path = written(tmp_path, x, y)
    size = None if written is in_arrays else SIZE
    train(image_settings(tmp_path / "whole.npz", image_size=None, epochs=1), tmp_path / "reference")
    settings, out = image_settings(path, image_size=size, epochs=1), tmp_path / "run"
    with pytest.raises(Crash):
        train(settings, out, progress=StopAt(1, 2, Crash()))
    resume(out)
    ours, theirs = weights(out), weights(tmp_path / "reference")
    for name in ("weights", "best_weights", "history"):
        np.testing.assert_equal(ours[name], theirs[name])
    ours_, theirs_ = splits_of(out), splits_of(tmp_path / "reference")
    for one, other in zip(ours_, theirs_, strict=True):
        np.testing.assert_array_equal(one.x, other.x)
        assert len(one.names) == len(other.names)
    table = training.evaluate(out, str(path))
    assert table["trained"].keys() == {"recall@1", "recall@10", "map@r", "mrr"}


@pytest.mark.once
def test_vectors_in_shards_of_parquet_are_those_of_an_array(tmp_path: Path) -> None:
    file = np.load(write_vectors(tmp_path / "vectors.npz"))
    (tmp_path / "shards").mkdir()
    for k in range(3):
        rows = slice(24 * k, 24 * (k + 1))
        table = pa.table({"embedding": list(file["x"][rows]), "label": file["y"][rows]})
        pq.write_table(table, tmp_path / "shards" / f"{k}.parquet", row_group_size=7)
    for name in ("vectors.npz", "shards"):
        settings = dataclasses.replace(settings_for(tmp_path / name), epochs=1)
        train(settings, tmp_path / f"run on {name}")
    ours, theirs = (weights(tmp_path / f"run on {name}") for name in ("vectors.npz", "shards"))
    np.testing.assert_equal(ours["weights"], theirs["weights"])


@pytest.mark.once
def test_vectors_that_are_not_finite_are_refused_before_training(tmp_path: Path) -> None:
    file = dict(np.load(write_vectors(tmp_path / "vectors.npz")))
    file["x"][50, 3] = np.inf
    np.savez(tmp_path / "vectors.npz", **file)
    with pytest.raises(ValueError, match=r"NaN or infinite in float32, the first in row 50"):
        train(settings_for(tmp_path / "vectors.npz"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.once
def test_files_that_were_added_changed_or_removed_are_named_and_the_run_goes_on(
    folder: Path, tmp_path: Path
) -> None:
    photos = shutil.copytree(folder, tmp_path / "photos")
    out = tmp_path / "run"
    with pytest.raises(Crash):
        train(image_settings(photos), out, progress=StopAt(2, 1, Crash()))
    listed = listing.read(out / "listing.npz")
    train_files, test_files = listed.files("train"), listed.files("test")

    (photos / "a new class").mkdir()
    shutil.copy(photos / train_files[0], photos / "a new class" / "0.png")
    (photos / test_files[1]).touch()  # the same bytes
    progress = StopAt(1, 1, Crash())
    with pytest.raises(Crash):
        resume(out, progress=progress)
    assert not any("not as it was" in note for note in progress.notes)

    changed = pictures()[0][0][::-1]
    (photos / test_files[1]).write_bytes(encoded(changed))
    (photos / train_files[3]).unlink()
    (photos / test_files[0]).unlink()
    progress = StopAt(0, 0, Crash())
    resume(out, progress=progress)
    said = "\n".join(progress.notes)
    assert "photos is not as it was when this run began:" in said
    assert f"train images gone (1): {train_files[3]}." in said
    assert f"test images gone (1): {test_files[0]}." in said
    assert f"test images changed (1): {test_files[1]}." in said
    assert f"On {len(test_files) - 1} images of 4 classes" in said

    for name in test_files:
        (photos / name).unlink(missing_ok=True)
    (out / "metrics.json").unlink()
    with pytest.raises(ValueError, match=r"No test image of this run is in .*photos any more"):
        resume(out)


@pytest.mark.once
def test_a_file_that_cannot_be_decoded_is_named_once_and_remembered(
    folder: Path, tmp_path: Path
) -> None:
    photos = shutil.copytree(folder, tmp_path / "photos")
    settings = image_settings(photos, epochs=3)
    bad = []
    for split in sources.load_splits(str(photos), SIZE):
        assert split.files is not None
        bad.append(split.files[2])
        damage(photos / bad[-1])
    out, whole = tmp_path / "run", tmp_path / "whole"
    first, second = StopAt(3, 1, Crash()), StopAt(0, 0, Crash())
    with pytest.raises(Crash):
        train(settings, out, progress=first)
    resume(out, progress=second)
    notes = [note for note in first.notes + second.notes if note.startswith("Unreadable")]
    assert [" ".join(notes).count(name) for name in bad] == [1, 1, 1]
    assert files.read_json(out / "unreadable.json").keys() == set(bad)
    assert "On 23 images of 4 classes" in second.notes[-1]
    train(settings, whole)
    np.testing.assert_equal(weights(out), weights(whole))


@pytest.mark.once
def test_a_column_keeps_the_rows_of_its_values_together(tmp_path: Path) -> None:
    x, y = pictures()
    path = in_listing(tmp_path, x, y)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    person = [f"person {k // 3 % 9}" for k in range(len(y))]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [[*row, name] for row, name in zip(rows, ["Person", *person], strict=True)]
        )
    splits = sources.load_splits(str(path), SIZE, group="person")
    of = {f"{k}.png": person[k] for k in range(len(y))}
    people = [{of[name] for name in split.files or ()} for split in splits]
    assert [len(group) for group in people] == [5, 1, 3]
    assert set.union(*people) == set(person)
    assert sum(map(len, splits)) == len(y)
    assert not splits.classes_are_unseen

    train(image_settings(path, split_by="person", epochs=1), tmp_path / "run")
    for ours, theirs in zip(splits_of(tmp_path / "run"), splits, strict=True):
        assert ours.files == theirs.files
    for data, column, message in (
        (path, "product", r"list.csv must have one column named product"),
        (tmp_path, "person", None),
    ):
        if message:
            with pytest.raises(ValueError, match=message):
                sources.load_splits(str(data), SIZE, group=column)
    with pytest.raises(ValueError, match="Glyphs have no column person"):
        sources.load_splits("glyphs", None, group="person")


@pytest.mark.once
def test_a_column_does_not_divide_what_is_divided(tmp_path: Path) -> None:
    x, y = pictures()
    path = in_listing(tmp_path, x, y)
    lines = path.read_text().splitlines()
    lines = [f"{lines[0]},split,who", *(f"{line},train,{k}" for k, line in enumerate(lines[1:]))]
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match="has parts of its own, so that no column divides it"):
        sources.load_splits(str(path), SIZE, group="who")


@pytest.mark.once
def test_a_large_test_is_measured_whole_and_its_raw_input_on_whole_classes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_MOST", 20)
    monkeypatch.setattr(sampling, "MOST_VALIDATION", 8)
    progress = StopAt(0, 0, Crash())
    out = tmp_path / "run"
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    train(image_settings(whole, epochs=1), out, progress=progress)
    metrics = files.read_json(out / "metrics.json")
    assert metrics["counts"]["test"]["examples"] == 24
    sample = metrics["sample"]
    assert sample["examples"] == 20
    assert sample["of"] == 24
    assert "The raw input is measured on 20 of the 24 examples" in progress.notes[-1]
    assert any("compared by 8 of the 12 validation" in note for note in progress.notes)

    test = splits_of(out)[2]
    rows = sampling.drawn_rows(test.y, 20)
    assert np.bincount(test.y[rows]).tolist() == [5] * 4
    model = keras.saving.load_model(out / "model.keras")
    if metrics["best"] == "trained":
        embeddings = evaluation.embed(model, test.x)
        found = evaluation.scores({"all": (embeddings, None)}, test.y)[0]
        assert metrics["trained"] == evaluation.averaged(found)["all"]
        part = evaluation.scores({"some": (embeddings[rows], None)}, test.y[rows])[0]
        assert sample["trained"] == evaluation.averaged(part)["some"]
    raw = evaluation.scores({"raw": (raw_input.pixels(test.x[rows]), None)}, test.y[rows])[0]
    assert metrics["pixels"] == evaluation.averaged(raw)["raw"]
    rise = metrics["gain"]["map@r"]["difference"]
    assert rise == pytest.approx(sample["trained"]["map@r"] - metrics["pixels"]["map@r"])
    report = (out / "report.html").read_text("utf-8")
    assert "20 of 24, drawn at random by class" in report

    said = training.evaluate(out, str(whole), progress, gallery=str(folder))
    assert said.keys() == {"pixels", "untrained", "trained"}
    assert "The raw input is measured on" in progress.notes[-1]


@pytest.mark.once
def test_rows_are_drawn_of_whole_classes_or_of_some_of_each() -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 200, 3000)
    rows = sampling.drawn_rows(y, 500)
    assert 450 < len(rows) <= 500
    counts = np.bincount(y)
    drawn = np.bincount(y[rows], minlength=200)
    assert ((drawn == 0) | (drawn == counts)).all()
    np.testing.assert_array_equal(rows, np.sort(np.unique(rows)))
    np.testing.assert_array_equal(rows, sampling.drawn_rows(y, 500))
    y = rng.integers(0, 3, 3000)
    rows = sampling.drawn_rows(y, 60)
    assert np.bincount(y[rows]).tolist() == [20, 20, 20]
    np.testing.assert_array_equal(sampling.drawn_rows(y[:50], 60), np.arange(50))


def own_network() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, strides=2),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(8),
        ]
    )


@keras.saving.register_keras_serializable("kinfold-tests")
class OwnCode(keras.Model):
    """A model without a graph of layers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.flat, self.dense = keras.layers.Flatten(), keras.layers.Dense(8)

    def call(self, x: Any) -> Any:
        return self.dense(self.flat(x) / 255)


def own_code() -> keras.Model:
    model = OwnCode()
    model(np.zeros((1, SIZE, SIZE, 3), "float32"))
    return model


@pytest.mark.parametrize("made", [own_network, own_code])
def test_a_run_trains_a_model_of_ones_own(made: Any, folder: Path, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    model = made()
    before = evaluation.as_numpy(model.variables)
    options = {"normalize": True}
    size = None if made is own_network else SIZE
    settings = image_settings(
        folder, embedding_size=None, loss_options=options, image_size=size, augment="light"
    )
    train(settings, tmp_path / "whole", model=model)
    np.testing.assert_equal(evaluation.as_numpy(model.variables), before)
    with pytest.raises(Crash):
        train(settings, tmp_path / "run", model=model, progress=StopAt(2, 1, Crash()))
    resume(tmp_path / "run")
    np.testing.assert_equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    checkpoint = run_folder.read_checkpoint(tmp_path / "run" / "checkpoint.npz")
    assert not np.array_equal(checkpoint.best_weights[0], before[0])
    metrics = files.read_json(tmp_path / "run" / "metrics.json")
    table = training.evaluate(tmp_path / "run", str(folder))
    assert table.keys() == {"pixels", "untrained", "trained"}
    assert metrics["best"] in ("raw", "start", "trained")
    model.save(tmp_path / "run" / "model.keras")  # as where an epoch is kept
    again = training.evaluate(tmp_path / "run", str(folder))
    assert again["trained"] == pytest.approx(table["untrained"])


@pytest.mark.once
@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        (own_network, {"embedding_size": 16}, r"leave out embedding_size=16"),
        (own_network, {"backbone": "small"}, r"leave out backbone='small'"),
        (own_network, {"image_size": 32}, r"The model takes images of \(8, 8, 3\): leave out"),
        (lambda: keras.Sequential([keras.layers.Dense(3)]), {}, "is not built: call it on a batch"),
        (
            lambda: keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.ReLU()]),
            {},
            r"must give one embedding for each example, \[n, d\]. Received \(1, 8, 8, 3\)",
        ),
        (
            lambda: keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)]),
            {},
            r"takes examples of \(5,\); .* holds examples of \(64, 64, 3\)",
        ),
    ],
)
def test_a_model_that_does_not_do_is_refused_and_leaves_no_folder(
    model: Any, change: dict[str, Any], message: str, folder: Path, tmp_path: Path
) -> None:
    settings = image_settings(folder, **{"embedding_size": None, "image_size": None, **change})
    with pytest.raises(ValueError, match=message):
        train(settings, tmp_path / "run", model=model())
    assert not (tmp_path / "run").exists()
    with pytest.raises(TypeError, match=r"must be a Keras model\. Received a str"):
        train(settings, tmp_path / "run", model="small")  # type: ignore[arg-type]


@pytest.mark.once
def test_the_data_of_a_run_is_opened_without_reading_it(folder: Path, unbroken: Path) -> None:
    run = RunFolder(unbroken)
    splits, notes = sources.again(run, records.read_config(run).settings)
    assert not notes
    for split in splits:
        assert isinstance(split.x, Stored)
    assert sources.training_classes(run) == set(splits.train.names)
