"""Encoders: what goes in, what comes out, and that it survives a file."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from kinfold import encoders
from kinfold.encoders import networks
from kinfold.encoders.scaling import Scaling, value_range
from kinfold.layers import L2Embedding
from kinfold.losses import CircleLoss
from kinfold.training import raw_input


def images(shape: tuple[int, int, int], count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def as_numpy(tensor: object) -> np.ndarray:
    return np.array(ops.convert_to_numpy(tensor))


@pytest.mark.parametrize("shape", [(32, 32, 1), (8, 8, 3), (28, 20, 1), (5, 64, 4)])
def test_small_convnet_gives_unit_embeddings_of_uint8_and_float_images(
    shape: tuple[int, int, int],
) -> None:
    model = encoders.small_convnet(shape, embedding_size=6)
    x = images(shape)
    embeddings = as_numpy(model(x))
    assert embeddings.shape == (3, 6)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(as_numpy(model(x.astype("float32"))), embeddings, atol=1e-6)


def test_vector_head_starts_from_the_geometry_of_the_vectors(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(5.0, 2.0, (64, 7)).astype("float32")
    x[3] = 0.0
    rows = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    for size in (7, 9):
        model = encoders.vector_head(7, embedding_size=size)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        for head in (model, loaded):
            for scale in (1e-3, 1.0, 1e4):
                embeddings = as_numpy(head(x * np.float32(scale)))
                np.testing.assert_allclose(embeddings @ embeddings.T, rows @ rows.T, atol=1e-5)


def test_vector_head_projects_to_fewer_dimensions_without_stretching() -> None:
    keras.utils.set_random_seed(0)
    model = encoders.vector_head(7, embedding_size=3)
    kernel = as_numpy(model.layers[-1].kernel)
    np.testing.assert_allclose(kernel[:7].T @ kernel[:7], np.eye(3), atol=1e-6)
    assert not kernel[7:].any()
    keras.utils.set_random_seed(0)
    again = encoders.vector_head(7, embedding_size=3)
    np.testing.assert_array_equal(as_numpy(again.layers[-1].kernel), kernel)


def test_both_parts_of_the_vector_head_are_trained() -> None:
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    model = encoders.vector_head(4, embedding_size=4)
    trainer = keras.Model(model.inputs, model.outputs)
    trainer.compile("adam", CircleLoss(margin=0.25))
    before = [as_numpy(variable) for variable in model.trainable_variables]
    # The hidden layer has a gradient once its way out is not zero.
    trainer.fit(x, np.arange(32) % 4, batch_size=32, epochs=2, verbose=0)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert not np.array_equal(old, as_numpy(variable)), variable.path


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("DenseNet121", "densenet"),
        ("MobileNet", "mobilenet"),
        ("MobileNetV3Small", "mobilenet_v3"),
        ("ResNet50", "resnet"),
        ("ResNet50V2", "resnet_v2"),
        ("VGG16", "vgg16"),
        ("Xception", "xception"),
    ],
)
def test_images_are_scaled_as_the_application_expects(name: str, module: str) -> None:
    x = images((4, 4, 3)).astype("float32")
    expected = getattr(keras.applications, module).preprocess_input(x.copy())
    inputs = keras.Input((4, 4, 3))
    scaled = networks._scale(inputs, name)
    model = keras.Model(inputs, scaled if scaled is not inputs else ops.copy(inputs))
    np.testing.assert_allclose(as_numpy(model(x)), as_numpy(expected), rtol=1e-4, atol=1e-4)


def tiny_vgg(
    include_top: bool, weights: None, input_shape: tuple[int, ...], pooling: str
) -> keras.Model:
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, 2, data_format="channels_last")(inputs)
    pool = keras.layers.GlobalAveragePooling2D(data_format="channels_last")
    return keras.Model(inputs, pool(keras.layers.ReLU()(x)))


ALONE = """
import sys, keras, numpy as np
folder = sys.argv[1]
x = np.load(folder + "/x.npz")
loaded = {name: keras.saving.load_model(f"{folder}/{name}.keras") for name in x.files}
np.savez(folder + "/y.npz", **{k: np.asarray(m.predict_on_batch(x[k])) for k, m in loaded.items()})
assert "kinfold" not in sys.modules
"""


@pytest.mark.once
def test_models_are_saved_of_plain_layers_that_load_without_kinfold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.applications, "VGG16", tiny_vgg)
    photos, grey = images((8, 8, 3)), images((8, 8, 1))
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    vectors[1] = 0.0
    spectra = np.random.default_rng(1).normal(-40.0, 15.0, (3, 8, 8, 1)).astype("float32")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = encoders.vector_head(5, 3)
    finally:
        keras.config.set_dtype_policy("float32")
    made = {
        "small": (encoders.small_convnet((8, 8, 1), 4), grey),
        "unit": (encoders.small_convnet((8, 8, 1), 4, Scaling("unit")), grey / np.float32(255)),
        "spectra": (encoders.small_convnet((8, 8, 1), 4, Scaling.of(spectra)), spectra),
        "vgg": (encoders.application("VGG16", (8, 8, 3), 4), photos),
        "head": (encoders.vector_head(5, 6), vectors),
        "half": (half, vectors),
    }
    inputs, expected = {}, {}
    for name, (model, x) in made.items():
        inputs[name] = x
        expected[name] = as_numpy(model(x))
        encoders.plain(model).save(tmp_path / f"{name}.keras")
    for name, x in (("raw images", images((130, 70, 1))), ("raw vectors", vectors)):
        inputs[name], expected[name] = x, raw_input.pixels(x)
        encoders.raw(x.shape[1:]).save(tmp_path / f"{name}.keras")
    np.savez(tmp_path / "x.npz", **inputs)
    done = subprocess.run([sys.executable, "-c", ALONE, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "y.npz")
    for name, embeddings in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], embeddings, atol=1e-6, err_msg=name)


def test_the_first_layer_brings_images_to_0_to_255() -> None:
    bytes_ = images((4, 4, 3)).astype("float32")
    model = encoders.small_convnet((4, 4, 3), 4)
    unit = encoders.small_convnet((4, 4, 3), 4, Scaling("unit"))
    for ours, theirs in zip(unit.weights, model.weights, strict=True):
        ours.assign(theirs)
    expected = as_numpy(model(bytes_))
    np.testing.assert_allclose(as_numpy(unit(bytes_ / 255)), expected, atol=1e-5)
    assert value_range(model) == (0.0, 255.0)
    assert value_range(unit) == (0.0, 1.0)

    spectra = np.random.default_rng(0).normal([-40.0, 1e4, 0.0], [15.0, 1.0, 1e-3], (9, 6, 6, 3))
    scaling = Scaling.of(spectra.astype("float32"))
    layer = scaling.layer()
    assert layer is not None
    scaled = as_numpy(layer(spectra.astype("float32")))
    np.testing.assert_allclose(scaled.mean(axis=(0, 1, 2)), 127.5, atol=0.1)
    np.testing.assert_allclose(scaled.std(axis=(0, 1, 2)), 42.5, atol=0.1)
    low, high = value_range(encoders.small_convnet((6, 6, 3), 4, scaling))
    assert low == pytest.approx(spectra[..., 0].mean() - 3 * spectra[..., 0].std(), rel=1e-4)
    assert high == pytest.approx(1e4 + 3, rel=1e-3)


def test_an_application_survives_a_file(tmp_path: Path) -> None:
    model = encoders.application("MobileNet", (32, 32, 3), embedding_size=5)
    assert model.output_shape == (None, 5)
    assert isinstance(model.layers[-1], L2Embedding)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_channel_flip_of_caffe_networks_survives_a_file(tmp_path: Path) -> None:
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, networks._scale(inputs, "VGG16"))
    model.save(tmp_path / "model.keras")
    x = images((4, 4, 3))
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(as_numpy(loaded(x)), as_numpy(model(x)))


@pytest.mark.parametrize("name", ["ResNet5", "mobilenet", "imagenet_utils", "__name__", ""])
def test_an_unknown_backbone_is_refused_with_the_known_names(name: str) -> None:
    with pytest.raises(ValueError, match=r"Unknown backbone.*MobileNetV2"):
        encoders.application(name, (32, 32, 3))


def test_a_shape_that_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"height, width, channels.*\(32, 32\)"):
        encoders.small_convnet((32, 32))
