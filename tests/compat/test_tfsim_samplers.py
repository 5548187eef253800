"""The samplers and augmenters of TensorFlow Similarity."""

import functools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from kinfold.compat import tensorflow_similarity as tfsim
from kinfold.compat.tensorflow_similarity.augmenters import (
    Augmenter,
    BarlowAugmenter,
    ContrastiveAugmenter,
    SimCLRAugmenter,
)
from kinfold.compat.tensorflow_similarity.augmenters.changes import look
from kinfold.compat.tensorflow_similarity.samplers import (
    MultiShotFileSampler,
    MultiShotMemorySampler,
    SingleShotMemorySampler,
    TFDatasetMultiShotMemorySampler,
    TFRecordDatasetSampler,
    select_examples,
)
from kinfold.compat.tensorflow_similarity.samplers.files import load_image

Y = np.repeat([3, 5, 8, 9], [6, 4, 5, 2])
X = np.arange(len(Y) * 2.0).reshape(-1, 2)


@pytest.mark.once
def test_a_batch_holds_so_many_of_each_class() -> None:
    batches = MultiShotMemorySampler(
        X, Y, classes_per_batch=3, examples_per_class_per_batch=2, steps_per_epoch=40
    )
    assert len(batches) == 40
    seen = set()
    for i in range(40):
        x, y = batches[i]
        classes, counts = np.unique(y, return_counts=True)
        assert (len(classes), set(counts)) == (3, {2})
        assert len(np.unique(x[:, 0])) == 6  # without replacement
        np.testing.assert_array_equal(Y[(x[:, 0] // 2).astype(int)], y)
        seen |= set(classes.tolist())
    assert seen == {3, 5, 8, 9}
    assert tfsim.training_metrics.batch_class_ratio(batches, 10) == 2.0
    same, other = batches[3], batches[4]
    np.testing.assert_array_equal(batches[3][0], same[0])
    assert not np.array_equal(same[0], other[0])
    keras.utils.set_random_seed(3)
    one = MultiShotMemorySampler(X, Y)[0]
    keras.utils.set_random_seed(3)
    np.testing.assert_array_equal(MultiShotMemorySampler(X, Y)[0][0], one[0])


@pytest.mark.once
def test_classes_and_examples_are_chosen() -> None:
    batches = MultiShotMemorySampler(X, Y, class_list=[3, 8], total_examples_per_class=3)
    assert (batches.num_examples, batches.class_list, batches.example_shape) == (6, [3, 8], (2,))
    x, y = batches.get_slice(0, 6)
    assert sorted(y.tolist()) == [3, 3, 3, 8, 8, 8]
    np.testing.assert_array_equal(Y[(x[:, 0] // 2).astype(int)], y)
    with pytest.warns(UserWarning, match="1 of 4 classes have fewer than 3 examples"):
        small = MultiShotMemorySampler(X, Y, classes_per_batch=4, examples_per_class_per_batch=3)
    assert np.unique(small[0][1], return_counts=True)[1].tolist() == [3] * 4
    x, y = select_examples(X, Y, num_examples_per_class=4)
    assert np.unique(y, return_counts=True)[1].tolist() == [4, 4, 4, 2]
    assert len(np.unique(x[:, 0])) == 14
    assert not np.array_equal(y, np.sort(y))
    every, labels = select_examples(X.tolist(), Y.tolist())
    assert sorted(labels.tolist()) == Y.tolist()
    assert every.shape == X.shape


def test_fit_takes_a_sampler_and_warms_up() -> None:
    told: list[bool] = []

    def augmenter(x: Any, y: Any, number: int, is_warmup: bool) -> Any:
        told.append(is_warmup)
        return x, y

    batches = MultiShotMemorySampler(
        X.astype("float32"), Y, steps_per_epoch=3, augmenter=augmenter, warmup=1
    )
    model = keras.Sequential([keras.Input((2,)), tfsim.layers.MetricEmbedding(4)])
    model.compile("sgd", tfsim.losses.TripletLoss())
    model.fit(batches, epochs=2, verbose=0)
    assert batches.epoch == 2
    # Keras may look at a batch before the first step.
    assert told[-3:] == [False] * 3
    assert sum(told) >= 3
    assert told == sorted(told, reverse=True)


@pytest.mark.once
def test_single_shots_are_made_positives_by_the_augmenter() -> None:
    images = np.random.default_rng(0).random((9, 4, 4, 1)).astype("float32")
    flip = ContrastiveAugmenter(lambda image: image[:, ::-1], num_cpu=2)
    batches = SingleShotMemorySampler(images, flip, examples_per_batch=5, steps_per_epoch=2)
    first, second = batches[0]
    assert first.shape == second.shape == (5, 4, 4, 1)
    flat = {image.tobytes() for image in np.ascontiguousarray(images[:, :, ::-1])}
    assert {image.tobytes() for image in first} <= flat
    one, _ = batches.get_slice(2, 3)
    np.testing.assert_array_equal(one, images[2:5, :, ::-1])
    assert (batches.num_examples, batches.example_shape) == (9, (4, 4, 1))
    with pytest.raises(ValueError, match="need an `augmenter`"):
        SingleShotMemorySampler(images, None, 5)
    three = functools.partial(flip, num_augmentations_per_example=3)
    wrong = SingleShotMemorySampler(images, lambda x, y, n, warm: three(x), 5)
    with pytest.raises(ValueError, match=r"must return two.*Received 3"):
        wrong[0]


@pytest.mark.once
def test_files_are_read_as_they_are_drawn(tmp_path: Path) -> None:
    from PIL import Image

    y = np.repeat([0, 1, 2], 3)
    paths = []
    for i in range(9):
        colour = np.full((6, 8, 3), 25 * i, "uint8")
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(colour).save(paths[-1])
    read = functools.partial(load_image, target_size=(4, 5))
    batches = MultiShotFileSampler(paths, y, load_example_fn=read)
    x, labels = batches[0]
    assert x.shape == (4, 4, 5, 3)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(y[np.round(x[:, 0, 0, 0] * 255 / 25).astype(int)], labels)
    assert load_image(paths[0]).shape == (6, 8, 3)


@pytest.mark.once
def test_a_dataset_of_dictionaries() -> None:
    splits = {
        "train": [{"image": X[i], "label": Y[i]} for i in range(12)],
        "test": [{"image": X[i], "label": Y[i]} for i in range(12, 17)],
        "other": [{"picture": X[0]}],
    }
    batches = TFDatasetMultiShotMemorySampler(
        splits, 4, preprocess_fn=lambda x, y: (x + 100, y), steps_per_epoch=2
    )
    x, y = batches[0]
    np.testing.assert_array_equal(Y[((x[:, 0] - 100) // 2).astype(int)], y)
    assert batches.num_examples == 17
    assert TFDatasetMultiShotMemorySampler(splits, 2, splits="train").num_examples == 12
    with pytest.raises(ValueError, match=r"`x_key` must be one of \['picture'\]"):
        TFDatasetMultiShotMemorySampler(splits, 1, splits="other")
    with pytest.raises(ValueError, match="`splits` must be of"):
        TFDatasetMultiShotMemorySampler(splits, 1, splits="validation")
    with pytest.raises(ImportError, match="Or pass the splits themselves"):
        TFDatasetMultiShotMemorySampler("mnist", 2)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="reads by TensorFlow")
def test_shards_of_records(tmp_path: Path) -> None:
    import tensorflow as tf

    for shard, classes in enumerate(([0, 0, 1, 1, 1, 1], [2, 2, 3, 3])):
        with tf.io.TFRecordWriter(str(tmp_path / f"{shard}.tfrec"), "GZIP") as file:
            for label in classes:
                file.write(np.array([label, label], "int64").tobytes())

    def read(record: Any) -> Any:
        pair = tf.io.decode_raw(record, tf.int64)
        return tf.cast(pair, "float32"), pair[0]

    batches = TFRecordDatasetSampler(
        tmp_path, read, batch_size=4, compression="GZIP", num_repeat=1, prefetch_size=1
    )
    labels = [y.numpy().tolist() for _, y in batches]
    assert sorted(one for batch in labels for one in batch) == [0, 0, 1, 1, 1, 1, 2, 2, 3, 3]
    for batch in labels[:2]:
        assert np.unique(batch, return_counts=True)[1].tolist() in ([2, 2], [4])
    assert sorted(labels[0]) in ([0, 0, 2, 2],)
    with pytest.raises(FileNotFoundError, match=r"no \*.records"):
        TFRecordDatasetSampler(tmp_path, read, shard_suffix="*.records")
    with pytest.raises(ValueError, match="`compression` must be one of"):
        TFRecordDatasetSampler(tmp_path, read, compression="LZ4")


@pytest.mark.once
def test_what_a_sampler_cannot_take_is_refused() -> None:
    with pytest.raises(ValueError, match="must be at most 4, the number of classes"):
        MultiShotMemorySampler(X, Y, classes_per_batch=5)
    with pytest.raises(ValueError, match="17 examples and 16 labels"):
        MultiShotMemorySampler(X, Y[1:])
    with pytest.raises(ValueError, match=r"without any: \[4\]"):
        select_examples(X, Y, class_list=[3, 4])
    with pytest.raises(TypeError, match="integer"):
        select_examples(X, Y.astype("float32"))
    with pytest.raises(TypeError, match="`augmenter` must be a function"):
        MultiShotMemorySampler(X, Y, augmenter="simclr")
    with pytest.raises(ValueError, match="`num_examples_per_class`"):
        select_examples(X, Y, num_examples_per_class=0)


def pictures(n: int = 6, size: int = 20, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, channels), "uint8")


def test_a_window_is_what_it_says() -> None:
    """A window of whole pixels is a slice; one that is halved is a mean."""
    x = pictures(2, 8).astype("float32")
    start = np.array([[0.25, 0.0], [0.5, 0.25]], "float32")
    share = np.full((2, 2), 0.5, "float32")
    given = [ops.convert_to_tensor(one) for one in (x, start, share)]
    cut = ops.convert_to_numpy(look(*given, (4, 4)))
    np.testing.assert_allclose(cut[0], x[0, 2:6, 4:8], atol=1e-3)
    np.testing.assert_allclose(cut[1], x[1, 0:4, 2:6], atol=1e-3)
    large = ops.convert_to_numpy(look(*given, (8, 8)))
    assert large.shape == (2, 8, 8, 3)
    assert np.all(large <= x.max())
    flat = ops.convert_to_numpy(look(ops.ones((2, 9, 7, 1)), given[1], given[2], (5, 3)))
    np.testing.assert_allclose(flat, 1, atol=1e-5)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_simclr_views(version: str) -> None:
    augmenter = SimCLRAugmenter(12, 16, version=version)
    x = pictures()
    first, second = augmenter(x, None, 2, False)
    for view in (first, second):
        assert view.shape == (6, 12, 16, 3)
        assert view.dtype == np.float32
        assert view.min() >= 0
        assert view.max() <= 1
    assert not np.allclose(first, second)
    centre = SimCLRAugmenter(20, 20, is_training=False, eval_crop_proportion=1.0)
    for view in centre(x, None, 2, False):
        np.testing.assert_allclose(view, x / 255.0, atol=2e-5)
    half = SimCLRAugmenter(10, 10, is_training=False, eval_crop_proportion=0.5)
    np.testing.assert_allclose(half(x)[0], x[:, 5:15, 5:15] / 255.0, atol=2e-5)
    plain = SimCLRAugmenter(20, 20, color_distort=False, crop=False, flip=False)
    np.testing.assert_allclose(plain(x)[1], x / 255.0, atol=1e-6)
    mirrored = SimCLRAugmenter(20, 20, color_distort=False, crop=False)(x)[0]
    back = np.array([np.allclose(a, b / 255.0) for a, b in zip(mirrored, x, strict=True)])
    turned = [np.allclose(a, b[:, ::-1] / 255.0) for a, b in zip(mirrored, x, strict=True)]
    assert np.all(back | turned)
    grey = SimCLRAugmenter(8, 8, color_distort=False)(pictures(channels=1))[0]
    assert grey.shape == (6, 8, 8, 1)


def test_colours_change_as_often_and_as_far_as_asked() -> None:
    x = np.full((64, 4, 4, 3), 0.5, "float32") + np.array([0.2, 0.0, -0.2], "float32")
    still = {
        "flip_probability": 0.0,
        "jitter_probability": 0.0,
        "greyscale_probability": 0.0,
        "blur_probability": 0.0,
        "solarize_probability": 0.0,
    }
    np.testing.assert_allclose(BarlowAugmenter(4, 4, **still)(x)[0], x, atol=1e-5)
    grey = BarlowAugmenter(4, 4, **{**still, "greyscale_probability": 0.5})(x)[0]
    without = np.abs(grey[..., 0] - grey[..., 2]).max((1, 2)) < 1e-5
    assert 16 <= without.sum() <= 48
    inverted = BarlowAugmenter(
        4, 4, **{**still, "solarize_probability": 1.0}, solarize_thresh=0.5, solarize_pixel_max=1
    )(x)[0]
    np.testing.assert_allclose(inverted, np.where(x < 0.5, x, 1 - x), atol=1e-5)
    bright = BarlowAugmenter(
        4, 4, 0.0, 0.3, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, solarize_probability=0.0
    )(x)[0]
    moved = bright[:, 0, 0, 1] - 0.5
    assert np.abs(moved).max() <= 0.3 + 1e-5
    assert np.std(moved) > 0.1
    blurred = BarlowAugmenter(
        20, 20, **{**still, "blur_probability": 1.0}, blur_min_sigma=1.0, blur_max_sigma=2.0
    )(pictures(8).astype("float32") / 255)[0]
    assert blurred.std() < 0.8 * (pictures(8) / 255).std()


def test_an_augmenter_of_ones_own_and_what_is_refused() -> None:
    class Twice(Augmenter):
        def augment(self, x: Any, y: Any, number: int, is_warmup: bool) -> Any:
            return np.concatenate([x] * number), np.concatenate([y] * number)

    batches = MultiShotMemorySampler(X, Y, augmenter=Twice())
    batches.num_augmentations_per_example = 2
    x, y = batches[0]
    assert (len(x), len(y)) == (8, 8)
    with pytest.raises(ValueError, match="`num_cpu` has no use"):
        SimCLRAugmenter(8, 8, num_cpu=4)
    with pytest.raises(ValueError, match="`version` must be one of"):
        SimCLRAugmenter(8, 8, version="v3")
    with pytest.raises(ValueError, match=r"3 channels. Received shape \(6, 8, 8, 1\)"):
        SimCLRAugmenter(8, 8)(pictures(channels=1))
    with pytest.raises(ValueError, match="size of a view"):
        SimCLRAugmenter(8, 8, crop=False)(pictures())
    with pytest.raises(ValueError, match=r"\[batch, height, width, channels\]"):
        SimCLRAugmenter(8, 8)(pictures()[0])
    with pytest.raises(ValueError, match="`flip_probability` must be at most 1"):
        BarlowAugmenter(8, 8, flip_probability=2.0)
    with pytest.raises(ValueError, match="`solarize_pixel_min` has no use"):
        BarlowAugmenter(8, 8, solarize_pixel_min=1)
