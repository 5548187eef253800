"""Fine-tuning: weights to begin from, frozen layers, augmentation, precision, early stopping."""

import dataclasses
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import ndimage

from kinfold import encoders
from kinfold.core import files
from kinfold.encoders import augmentation, pretrained
from kinfold.encoders.scaling import Scaling
from kinfold.training import evaluation, finishing, raw_input, records, run_folder, running, sources
from kinfold.training.commands import Settings, resume, train
from kinfold.training.progress import Progress
from kinfold.training.run_folder import RunFolder
from kinfold.training.untrained import untrained

pytestmark = pytest.mark.usefixtures("compile_once")


def Tiny(  # noqa: N802
    include_top: bool, weights: str | None, input_shape: tuple[int, ...], pooling: str
) -> keras.Model:
    """A network as those of keras.applications are, that a test has the time to train."""
    assert (include_top, weights, pooling) == (False, None, "avg")
    inputs = keras.Input(input_shape)
    x = inputs
    for filters in (4, 6):
        x = layers.Conv2D(filters, 3, 2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(layers.Dropout(0.1)(x))
    return keras.Model(inputs, x, name="tiny")


FROZEN = 4  # input, convolution, normalisation, ReLU


@pytest.fixture(autouse=True)
def tiny_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.applications, "Tiny", Tiny, raising=False)
    monkeypatch.setattr(
        finishing, "write_report", lambda path, report: path.write_text(report.warning, "utf-8")
    )


class Crash(BaseException):
    """Stops a process as no `except Exception` would hinder."""


class CrashAt(Progress):
    """Crashes in the midst of an epoch of this process, counted from 0; keeps what is said."""

    def __init__(self, epoch: int | None = None) -> None:
        self.left = epoch
        self.said = ""

    def note(self, text: str) -> None:
        self.said += text + "\n"

    def step(self, step: int, loss: Any) -> None:
        if self.left == 0 and step == 2:
            raise Crash

    def epoch(self, row: dict[str, float], best: bool) -> None:
        if self.left is not None:
            self.left -= 1


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(12), 6)
    x = rng.integers(0, 200, (12, 8, 8, 3))[y] + rng.integers(0, 56, (len(y), 8, 8, 3))
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, x=x.astype("uint8"), y=y)
    return path


def settings_for(data: Path, **more: Any) -> Settings:
    settings = Settings(
        str(data),
        backbone="Tiny",
        embedding_size=4,
        classes_per_batch=3,
        examples_per_class=2,
        steps_per_epoch=4,
        epochs=2,
    )
    return dataclasses.replace(settings, **more)


def values(variables: list[Any]) -> list[np.ndarray]:
    return evaluation.as_numpy(variables)


def contents(run: Path) -> dict[str, Any]:
    """All that must be the same, bit for bit."""
    folder = RunFolder(run)
    checkpoint = dataclasses.asdict(run_folder.read_checkpoint(folder.checkpoint))
    metrics = files.read_json(folder.metrics)
    del checkpoint["seconds"], metrics["seconds"]
    # Not the state of the dropout: Keras draws another whenever it loads a file.
    model = values(keras.saving.load_model(folder.model).weights)
    return {"checkpoint": checkpoint, "metrics": metrics, "model": model}


def test_a_fine_tuned_run_keeps_what_is_frozen_and_goes_on_without_its_file(
    images: Path, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(3)
    other = encoders.application("Tiny", (8, 8, 3), embedding_size=7)
    for variable in other.weights:  # statistics of normalisation too that no fresh network has
        variable.assign(np.random.default_rng(1).uniform(0.2, 1.0, variable.shape))
    other.save(tmp_path / "other.keras")
    settings = settings_for(
        images,
        weights=str(tmp_path / "other.keras"),
        freeze=FROZEN,
        augment="photo",
        precision="mixed_float16",
    )
    before = keras.config.dtype_policy()
    train(settings, tmp_path / "unbroken")
    assert keras.config.dtype_policy() is before

    folder = RunFolder(tmp_path / "unbroken")
    checkpoint = run_folder.read_checkpoint(folder.checkpoint)
    # The model of the best epoch, whether the run kept that or the raw input.
    best = untrained(folder, settings, (8, 8, 3), Scaling())
    evaluation.assign(best.variables, checkpoint.best_weights)
    encoders.plain(best).save(tmp_path / "best.keras")
    model = keras.saving.load_model(tmp_path / "best.keras")
    theirs, ours = pretrained.backbone(other), pretrained.backbone(model)
    for k, (ours_, theirs_) in enumerate(zip(ours.layers, theirs.layers, strict=True)):
        same = [
            np.array_equal(*pair)
            for pair in zip(values(ours_.weights), values(theirs_.weights), strict=True)
        ]
        assert all(same) if k < FROZEN else not any(same), ours_.name

    # In the checkpoint: Adam's two moments of each trained weight alone.
    trained = [w for w in model.weights if w.trainable]
    frozen = [w for layer in ours.layers[:FROZEN] for w in layer.weights]
    assert len(trained) + len(frozen) < len(model.weights)  # and the statistics
    slots = [array for array in checkpoint.optimizer if array.ndim]
    assert len(slots) == 2 * len(trained)

    # A plain model, of half precision inside, with embeddings of unit norm in float32.
    test = sources.again(folder, records.read_config(folder).settings)[0].test
    x = np.asarray(test.x)
    embeddings = model.predict(x, verbose=0)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, rtol=1e-5)
    assert {layer.compute_dtype for layer in ours.layers[1:]} == {"float16"}
    assert not any("mirror" in layer.name for layer in model.layers)

    # Before training it is the network of the file, in its own table and where it is evaluated.
    start = untrained(folder, settings, x.shape[1:], Scaling())
    for ours_, theirs_ in zip(
        values(pretrained.backbone(start).weights), values(theirs.weights), strict=True
    ):
        np.testing.assert_array_equal(ours_, theirs_)
    vectors = evaluation.embed(start, test.x)
    raw = raw_input.pixels(x)
    expected = evaluation.measure(test, vectors, vectors, lambda: raw)[0]["untrained"]
    assert files.read_json(folder.metrics)["untrained"] == expected

    broken = tmp_path / "broken"
    with pytest.raises(Crash):
        train(settings, broken, progress=CrashAt(0))
    (tmp_path / "other.keras").unlink()
    with pytest.raises(Crash):
        resume(broken, progress=CrashAt(1))
    resume(broken)
    np.testing.assert_equal(contents(broken), contents(tmp_path / "unbroken"))


def test_bfloat16_trains_in_bfloat16(images: Path) -> None:
    settings = settings_for(images, precision="mixed_bfloat16")
    encoder = settings.make_encoder((8, 8, 3))
    trainer = settings.make_trainer(encoder, 2)
    assert encoder.get_layer("tiny").layers[1].compute_dtype == "bfloat16"
    x = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype="uint8")
    weights = encoder.get_layer("tiny").layers[1].weights[0]
    old = values([weights])[0]
    loss = float(trainer.train_on_batch(x, np.repeat(np.arange(4), 2)))
    assert np.isfinite(loss)
    assert weights.dtype == "float32"
    assert not np.array_equal(values([weights])[0], old)
    assert keras.backend.standardize_dtype(trainer(x).dtype) == "float32"


@pytest.mark.parametrize("name", ["backbone.keras", "encoder.keras", "backbone.weights.h5"])
def test_weights_of_a_file_are_those_of_the_backbone(name: str, tmp_path: Path) -> None:
    other = encoders.application("Tiny", (12, 12, 3), embedding_size=7)  # of another size
    network = pretrained.backbone(other)
    if name.endswith(".h5"):
        network.save_weights(tmp_path / name)
    else:
        (other if name == "encoder.keras" else network).save(tmp_path / name)
    encoder = encoders.application("Tiny", (8, 8, 3), embedding_size=4)
    embedding = values(encoder.layers[-1].weights)
    pretrained.load_weights(encoder, tmp_path / name)
    for ours, theirs in zip(
        values(pretrained.backbone(encoder).weights), values(network.weights), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_equal(values(encoder.layers[-1].weights), embedding)


def test_encoders_without_a_network_of_keras_take_weights_and_freeze_too(tmp_path: Path) -> None:
    for make in (
        lambda size: encoders.small_convnet((8, 8, 1), size),
        lambda size: encoders.vector_head(5, size),
    ):
        other, encoder = make(6), make(3)
        other.save(tmp_path / "other.keras")
        pretrained.load_weights(encoder, tmp_path / "other.keras")
        pretrained.freeze(encoder, "all")
        for ours, theirs in zip(encoder.weights[:-2], other.weights[:-2], strict=True):
            np.testing.assert_array_equal(*values([ours, theirs]))
        assert encoder.trainable_weights == encoder.layers[-1].weights


def test_files_that_are_not_the_weights_of_the_backbone(tmp_path: Path) -> None:
    encoder = encoders.application("Tiny", (8, 8, 3), embedding_size=4)
    small = encoders.small_convnet((8, 8, 3), embedding_size=4)
    small.save(tmp_path / "small.keras")
    small.save_weights(tmp_path / "small.weights.h5")
    for name in ("text.keras", "text.weights.h5"):
        (tmp_path / name).write_text("text")
    for name, error, message in (
        ("small.keras", ValueError, "small.keras does not hold the weights of this backbone, tiny"),
        ("small.weights.h5", ValueError, "without its top, tiny with 10 arrays: "),
        ("text.keras", ValueError, "text.keras cannot be read as a Keras model: "),
        ("text.weights.h5", ValueError, "text.weights.h5 does not hold the weights"),
        ("none.h5", FileNotFoundError, "There is no file of weights .*none.h5"),
        ("imagenett", ValueError, r"'none', 'imagenet', or a file.*imagenett"),
    ):
        with pytest.raises(error, match=message) as raised:
            pretrained.load_weights(encoder, tmp_path / name)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"freeze": 12}, "`freeze` must be from 0 to 9, the layers of this backbone.*freeze=12"),
        ({"freeze": -1}, "`freeze` must be at least 0.*-1"),
        ({"freeze": "most"}, "`freeze` must be a whole number or all.*'most'"),
        ({"weights": "imagenet", "backbone": "small"}, "for networks of keras.applications"),
        ({"weights": "nowhere.keras"}, "There is no file of weights nowhere.keras"),
        ({"augment": "strong"}, "`augment` must be one of auto, none, light, photo.*'strong'"),
        ({"precision": "float16"}, "`precision` must be one of float32.*'float16'"),
        ({"patience": 0}, "`patience` must be at least 1"),
    ],
)
def test_settings_that_do_not_do_leave_no_folder(
    change: dict[str, Any], message: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(settings_for(images, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_vectors_take_no_augmentation() -> None:
    with pytest.raises(ValueError, match=r"holds vectors, and augmentation is for images.*light"):
        Settings("vectors.npz", augment="light").make_encoder((5,))


def test_weights_of_imagenet_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))  # no file from before
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "images.npz",
        x=rng.integers(0, 256, (24, 32, 32, 3), dtype="uint8"),
        y=np.repeat(np.arange(12), 2),
    )
    settings = Settings(str(tmp_path / "images.npz"), backbone="VGG16", weights="imagenet")
    with pytest.raises(ConnectionError, match=r"VGG16 for ImageNet could not.*no route to"):
        train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"for colour images, of 3 channels. Received images of 1"):
        encoders.application("VGG16", (32, 32, 1), weights="imagenet")


def test_augmentation_changes_images_in_training_alone() -> None:
    x = np.random.default_rng(0).integers(0, 256, (6, 9, 9, 3)).astype("float32")
    x[1] = x[0]

    def changed(layer: keras.Layer, training: bool) -> np.ndarray:
        return np.array(ops.convert_to_numpy(layer(x, training=training)))

    for layer in augmentation.make_layers("photo", seed=0):
        np.testing.assert_array_equal(changed(layer, training=False), x)
        first, second = changed(layer, training=True), changed(layer, training=True)
        assert not np.array_equal(first, second), layer.name
        assert min(first.min(), second.min()) >= 0
        assert max(first.max(), second.max()) <= 255 + 1e-3
        if layer.name == "mirror":
            left = [np.array_equal(a, b) for a, b in zip(first, x, strict=True)]
            right = [np.array_equal(a, b[:, ::-1]) for a, b in zip(first, x, strict=True)]
            assert [a or b for a, b in zip(left, right, strict=True)] == [True] * 6
        else:
            assert not np.array_equal(first[0], first[1]), "the same change for each image"
        again = next(
            other for other in augmentation.make_layers("photo", 0) if other.name == layer.name
        )
        np.testing.assert_array_equal(changed(again, training=True), first)
    for layer in augmentation.make_layers("photo", 0, (0.0, 1.0)):
        x /= max(x.max(), 1.0)
        assert 0 <= changed(layer, training=True).max() <= 1 + 1e-5
        assert not np.array_equal(changed(layer, training=True), x), layer.name
    assert augmentation.make_layers("none", 0) == []
    assert [layer.name for layer in augmentation.make_layers("light", 0)] == ["window"]


def test_the_window_is_the_affine_transform_of_scipy() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (5, 7, 10, 2)).astype("float32")
    scale, shift = rng.uniform(0.8, 1.2, (2, 5)), rng.uniform(-0.3, 0.3, (2, 5))
    tensors = [ops.convert_to_tensor(a.astype("float32")) for a in (x, scale, shift)]
    seen = ops.convert_to_numpy(augmentation.look(*tensors))
    centre = np.array([3.0, 4.5])
    for k in range(5):
        at = centre - scale[:, k] * centre + shift[:, k] * (7, 10)
        for channel in range(2):
            expected = ndimage.affine_transform(
                x[k, :, :, channel], scale[:, k], at, order=1, mode="nearest"
            )
            np.testing.assert_allclose(seen[k, :, :, channel], expected, atol=0.01)

    layer = augmentation.RandomWindow(move=0.0, zoom=0.0, dtype="float32")
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x, training=True)), x, atol=1e-3)


@pytest.mark.once
def test_early_stopping_stops_a_resumed_run_where_it_stops_an_unbroken_one(
    images: Path, tmp_path: Path
) -> None:
    # Nothing is learnt at this rate, so that no epoch is better than the first.
    settings = settings_for(images, epochs=9, patience=2, learning_rate=1e-12, freeze="all")
    progress = CrashAt()
    train(settings, tmp_path / "unbroken", progress=progress)
    metrics = files.read_json(tmp_path / "unbroken" / "metrics.json")
    best, done = metrics["best_epoch"], metrics["epochs"]
    assert done == best + 2 < 9
    assert metrics["finished"] is True
    assert "No better val_map@r in 2 epochs: stopping." in progress.said

    broken = tmp_path / "broken"
    with pytest.raises(Crash):
        train(settings, broken, progress=CrashAt(done - 1))
    resume(broken)
    np.testing.assert_equal(contents(broken), contents(tmp_path / "unbroken"))

    progress = CrashAt()
    resume(broken, progress=progress)
    assert f"is finished: {done} of 9 epochs, as the last 2 brought no better" in progress.said
    with pytest.raises(ValueError, match="`patience` must be at least 1"):
        resume(broken, patience=-1)
    resume(broken, patience=3)
    assert files.read_json(broken / "metrics.json")["epochs"] > done


def test_tensorboard_that_is_missing_is_named(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "find_spec", lambda name: None if name == "tensorboard" else name)
    with pytest.raises(ImportError, match="tensorboard is missing: pip install tensorboard"):
        train(settings_for(images, tensorboard=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.once
def test_tensorboard_gets_every_epoch_in_the_folder_of_the_run(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for Keras's own callback, whose packages are not everywhere."""
    seen: list[tuple[str, int, set[str]]] = []

    class Recorder(keras.callbacks.Callback):
        def __init__(self, folder: str, write_graph: bool) -> None:
            super().__init__()
            self.folder = folder

        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            seen.append((self.folder, epoch, set(logs or {})))

    monkeypatch.setattr(running, "find_spec", lambda name: name)
    monkeypatch.setattr(keras.callbacks, "TensorBoard", Recorder)
    train(settings_for(images, tensorboard=True), tmp_path / "run")
    names = {"loss", "val_recall@1", "val_map@r"}
    assert seen == [(str(tmp_path / "run" / "tensorboard"), k, names) for k in range(2)]
