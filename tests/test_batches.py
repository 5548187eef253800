"""Class-balanced batches: what each batch and each epoch holds, in `fit` and in other loaders."""

from __future__ import annotations

import pickle
import re
import warnings
from collections import Counter

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinfold.batches import ClassBalancedBatches, ClassBalancedIndices

LABELS = np.repeat(np.arange(12), 5)
EXAMPLES = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")


GOLDEN = {
    0: [[3, 4, 2, 1], [7, 5, 0, 1], [8, 6, 3, 4]],
    5: [[3, 4, 8, 7], [0, 1, 3, 4], [5, 6, 2, 0]],
}


def test_golden():
    # The epochs of a seed are a promise: a run resumed with a later version sees the same batches.
    indices = ClassBalancedIndices([7, 7, 7, 5, 5, 9, 9, 9, 9], 2, 2, seed=1)
    assert indices.epoch(0).tolist() == GOLDEN[0]
    assert indices.epoch(5).tolist() == GOLDEN[5]


@st.composite
def requests(draw):
    sizes = draw(st.lists(st.integers(2, 9), min_size=1, max_size=12))
    labels = np.repeat(draw(st.permutations(range(-3, len(sizes) - 3))), sizes)
    return {
        "labels": draw(st.permutations(labels.tolist())),
        "classes_per_batch": draw(st.integers(1, len(sizes))),
        "examples_per_class": draw(st.integers(1, 11)),
        "batches_per_epoch": draw(st.none() | st.integers(1, 15)),
        "seed": draw(st.integers(0, 2**63)),
    }


def spread(counts):
    return max(counts) - min(counts)


@settings(max_examples=150, deadline=None)
@given(requests(), st.integers(0, 1000))
def test_every_batch_and_epoch(request, k):
    labels = np.array(request["labels"])
    classes, examples = request["classes_per_batch"], request["examples_per_class"]
    indices = ClassBalancedIndices(**request)
    epoch = indices.epoch(k)

    batches = request["batches_per_epoch"] or -(-len(labels) // (classes * examples))
    assert epoch.shape == (batches, classes * examples)
    assert epoch.dtype == np.int64
    np.testing.assert_array_equal(epoch, ClassBalancedIndices(**request).epoch(k))
    for batch in epoch:
        per_class = Counter(labels[batch].tolist())
        assert len(per_class) == classes
        assert set(per_class.values()) == {examples}
        for label in per_class:
            # No repeats where the class has enough examples, as few as possible otherwise.
            size = np.sum(labels == label)
            drawn = Counter(batch[labels[batch] == label].tolist())
            assert len(drawn) == min(size, examples)
            assert spread(drawn.values()) <= 1
    # Dealt evenly over the epoch: the classes, and the examples of each class.
    appearances = [np.sum(labels[epoch] == label) // examples for label in np.unique(labels)]
    assert spread(appearances) <= 1
    for label in np.unique(labels):
        times = np.bincount(epoch.ravel(), minlength=len(labels))[labels == label]
        assert spread(times) <= 1


def test_every_pair_of_examples_meets():
    # A class dealt in fixed groups would pass the test above and never show most of its pairs.
    indices = ClassBalancedIndices(np.repeat([0, 1], 4), 2, 2, batches_per_epoch=60, seed=0)
    pairs = {tuple(sorted(batch[:2])) for batch in indices.epoch(0)}
    pairs |= {tuple(sorted(batch[2:])) for batch in indices.epoch(0)}
    assert len(pairs) == 12


def test_classes_are_drawn_fairly():
    # Ten classes, three a batch: over many epochs each class leads a tenth of the batches, each
    # pair of classes shares 1/15 of them, and so across the seam of two decks.
    labels = np.repeat(np.arange(10), 2)
    indices = ClassBalancedIndices(labels, 3, 2, batches_per_epoch=4, seed=0)
    batches = np.concatenate([labels[indices.epoch(k)[:, ::2]] for k in range(2000)])
    first = np.bincount(batches[:, 0], minlength=10) / len(batches)
    np.testing.assert_allclose(first, 0.1, atol=0.015)
    seam = np.sort(batches[3::4], axis=1)  # cards 10, 11 and 12: the last of a deck and two new
    together = Counter((a, b) for row in seam for a, b in ((row[0], row[1]), (row[1], row[2])))
    together += Counter((row[0], row[2]) for row in seam)
    shares = np.array(list(together.values())) / len(seam)
    assert len(shares) == 45
    np.testing.assert_allclose(shares, 1 / 15, atol=0.025)


def test_epochs_and_seeds_differ():
    indices = ClassBalancedIndices(LABELS, 4, 2, seed=0)
    assert not np.array_equal(indices.epoch(0), indices.epoch(1))
    other = ClassBalancedIndices(LABELS, 4, 2, seed=1)
    assert not np.array_equal(indices.epoch(0), other.epoch(0))
    unseeded = ClassBalancedIndices(LABELS, 4, 2)
    assert unseeded.seed != ClassBalancedIndices(LABELS, 4, 2).seed
    np.testing.assert_array_equal(unseeded.epoch(3), unseeded.epoch(3))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_shares_in_order_are_the_batch(size):
    # 15 rows: even for 3 and 5 ranks, uneven for 2 and 8.
    whole = ClassBalancedIndices(LABELS, 5, 3, seed=0)
    shares = [ClassBalancedIndices(LABELS, 5, 3, seed=0, share=(r, size)) for r in range(size)]
    assert [one.share for one in shares] == [(rank, size) for rank in range(size)]
    for k in range(2):
        parts = [one.epoch(k) for one in shares]
        assert {len(part) for part in parts} == {len(whole)}
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole.epoch(k))
        widths = [part.shape[1] for part in parts]
        assert widths == sorted(widths, reverse=True)
        assert spread(widths) <= 1


def test_iteration_moves_on_and_resumes():
    indices = ClassBalancedIndices(LABELS, 4, 2, seed=0)
    assert len(indices) == 8
    assert list(indices) == indices.epoch(0).tolist()
    next(iter(indices))  # a loop that stops early
    assert list(indices) == indices.epoch(2).tolist()
    resumed = ClassBalancedIndices(LABELS, 4, 2, seed=0)
    resumed.current_epoch = indices.current_epoch
    assert list(resumed) == list(indices) == indices.epoch(3).tolist()
    assert all(type(row) is int for row in next(iter(indices)))


def test_classes_with_one_example_are_left_out():
    labels = [0, 0, 1, 2, 2, 3, 4, 4]
    with pytest.warns(UserWarning, match=r"2 of 5 classes have one example and are left out"):
        indices = ClassBalancedIndices(labels, 3, 2, seed=0)
    assert indices.left_out.tolist() == [1, 3]
    assert len(indices) == 1  # one pass over the six examples that can be used
    assert sorted(indices.epoch(0)[0]) == [0, 1, 3, 4, 6, 7]


def test_labels_of_any_integer_type():
    expected = ClassBalancedIndices(LABELS, 4, 2, seed=0).epoch(0)
    for dtype in ("int8", "uint8", "int16", "int32", "uint32", "uint64"):
        indices = ClassBalancedIndices(LABELS.astype(dtype)[:, None], 4, 2, seed=0)
        np.testing.assert_array_equal(indices.epoch(0), expected)
    # 2^53 and 2^53 + 1 are one float64.
    big = ClassBalancedIndices(np.where(LABELS == 1, 2**53 + 1, 2**53), 2, 2, seed=0)
    assert len(big.left_out) == 0


@pytest.mark.parametrize(
    ("labels", "counts", "error", "message"),
    [
        (np.array([0.0, 0.0]), (1, 2), TypeError, "`labels` must hold integer class ids. Re"),
        (np.array([True, True]), (1, 2), TypeError, "Received dtype bool; pass labels.astype"),
        (["a", "a"], (1, 2), TypeError, "Received dtype <U1; pass np.unique(labels,"),
        ([], (1, 2), ValueError, "Received shape (0,)"),
        (np.zeros((2, 2), int), (1, 2), ValueError, "Received shape (2, 2)"),
        (5, (1, 2), ValueError, "Received shape ()"),
        ([0, 0, 1, 1], (3, 2), ValueError, "classes_per_batch is 3, but 2 of the 2 classes"),
        ([0, 0, 1], (2, 2), ValueError, "classes_per_batch is 2, but 1 of the 2 classes"),
        ([0, 0], (0, 2), ValueError, "classes_per_batch must be 1 or more. Received 0"),
        ([0, 0], (1, -1), ValueError, "examples_per_class must be 1 or more. Received -1"),
        ([0, 0], (1.0, 2), TypeError, "classes_per_batch must be an integer. Received 1.0"),
        ([0, 0], (1, True), TypeError, "examples_per_class must be an integer"),
        ([0, 0], (1, 2, 0), ValueError, "batches_per_epoch must be 1 or more"),
        ([0, 0], (1, 2, 1, -1), ValueError, "seed must be 0 or more"),
        ([0, 0], (1, 2, 1, "1"), TypeError, "seed must be an integer"),
        ([0, 0], (1, 2, 1, 1, (0, 3)), ValueError, "2 rows in all, for 3 ranks"),
        ([0, 0], (1, 2, 1, 1, (2, 2)), ValueError, "ranks are 0 to 1. Received share=(2, 2)"),
        ([0, 0], (1, 2, 1, 1, (-1, 2)), ValueError, "the rank in share must be 0 or more"),
        ([0, 0], (1, 2, 1, 1, (0, 0)), ValueError, "the world size in share must be 1 or more"),
        ([0, 0], (1, 2, 1, 1, 2), TypeError, "share must be None or (rank, world size). Rece"),
    ],
)
def test_bad_input(labels, counts, error, message):
    with pytest.raises(error, match=re.escape(message)):
        ClassBalancedIndices(labels, *counts)


# ClassBalancedBatches


def test_batches_gather_rows():
    y = LABELS.astype("int16")[:, None]
    expected = ClassBalancedIndices(LABELS, 4, 2, seed=0).epoch(0)
    batches = ClassBalancedBatches(EXAMPLES, y, 4, 2, seed=0)
    assert len(batches) == batches.num_batches == 8
    for rows, (x_batch, y_batch) in zip(expected, batches, strict=True):
        np.testing.assert_array_equal(x_batch, EXAMPLES[rows])
        np.testing.assert_array_equal(y_batch, y[rows])
        assert y_batch.dtype == np.int16
    np.testing.assert_array_equal(batches[-1][0], EXAMPLES[expected[-1]])
    with pytest.raises(IndexError):
        batches[8]


@pytest.mark.parametrize("workers", [1, 3])
def test_shares_of_batches(workers):
    whole = ClassBalancedBatches(EXAMPLES, LABELS, 5, 3, seed=0)
    shares = [
        ClassBalancedBatches(EXAMPLES, LABELS, 5, 3, seed=0, workers=workers, share=(rank, 2))
        for rank in range(2)
    ]
    shares[1] = pickle.loads(pickle.dumps(shares[1]))
    for (x, y), (first, y_first), (second, y_second) in zip(whole, *shares, strict=True):
        assert (len(first), len(second)) == (8, 7)
        np.testing.assert_array_equal(np.concatenate([first, second]), x)
        np.testing.assert_array_equal(np.concatenate([y_first, y_second]), y)


@pytest.mark.parametrize("kind", ["dict", "tuple", "list", "memory map"])
def test_x_of_several_arrays(kind, tmp_path):
    np.save(tmp_path / "x.npy", EXAMPLES)
    x, read = {
        "dict": ({"a": EXAMPLES, "b": LABELS}, lambda batch: batch["a"]),
        "tuple": ((EXAMPLES, LABELS), lambda batch: batch[0]),
        "list": ([LABELS, EXAMPLES], lambda batch: batch[1]),
        "memory map": (np.load(tmp_path / "x.npy", mmap_mode="r"), lambda batch: batch),
    }[kind]
    batch, _ = ClassBalancedBatches(x, LABELS, 4, 2, seed=0)[3]
    assert isinstance(batch, type(x) if kind != "memory map" else np.ndarray)
    rows = ClassBalancedIndices(LABELS, 4, 2, seed=0).epoch(0)[3]
    np.testing.assert_array_equal(read(batch), EXAMPLES[rows])


def test_threads_gather_the_same_batches():
    one = ClassBalancedBatches(EXAMPLES, LABELS, 4, 2, seed=0)
    three = ClassBalancedBatches(EXAMPLES, LABELS, 4, 2, seed=0, workers=3, max_queue_size=2)
    for _ in range(2):
        for k in (0, 1, 2, 7, 3, 3, 0):
            np.testing.assert_array_equal(one[k][0], three[k][0])
        one.on_epoch_end()
        three.on_epoch_end()
    assert one.current_epoch == three.current_epoch == 2


def test_bad_batches():
    with pytest.raises(ValueError, match=r"Received an array of shape \(59, 3\) in x, and 60 lab"):
        ClassBalancedBatches(EXAMPLES[:-1], LABELS, 4, 2)
    with pytest.raises(ValueError, match=r"an array of shape \(\) in x"):
        ClassBalancedBatches(3.0, LABELS, 4, 2)
    with pytest.raises(TypeError, match="`y` must hold integer class ids"):
        ClassBalancedBatches(EXAMPLES, LABELS.astype("float32"), 4, 2)
    with pytest.raises(ValueError, match="use_multiprocessing must be False"):
        ClassBalancedBatches(EXAMPLES, LABELS, 4, 2, use_multiprocessing=True)
    with pytest.raises(ValueError, match="max_queue_size must be 1 or more"):
        ClassBalancedBatches(EXAMPLES, LABELS, 4, 2, max_queue_size=0)


def one_unit():
    model = keras.Sequential(
        [keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")]
    )  # unbuilt: fit then looks at a batch before the first epoch
    model.compile(keras.optimizers.SGD(0.2, momentum=0.5), "mse", metrics=["mae"])
    return model


def weights_after(epochs, batches_per_epoch):
    """The weights after `train_on_batch` over these epochs: they tell any other order."""
    model, indices = one_unit(), ClassBalancedIndices(LABELS, 4, 2, batches_per_epoch, seed=3)
    for k in epochs:
        for rows in indices.epoch(k):
            model.train_on_batch(EXAMPLES[rows], LABELS[rows])
    return model.get_weights()[0]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("batches_per_epoch", [1, 7])
def test_fit_sees_every_epoch_in_order(batches_per_epoch, workers):
    batches = ClassBalancedBatches(
        EXAMPLES, LABELS, 4, 2, batches_per_epoch, seed=3, workers=workers
    )
    model = one_unit()
    model.fit(batches, epochs=2, verbose=0)
    assert batches.current_epoch == 2
    model.fit(batches, epochs=1, verbose=0, shuffle=False)
    assert batches.current_epoch == 3
    expected = weights_after([0, 1, 2], batches_per_epoch)
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=1e-5)
    swapped = weights_after([0, 2, 1], batches_per_epoch)
    assert np.abs(swapped - expected).max() > 1e-3  # the comparison tells the order


def test_fit_resumes():
    model = one_unit()
    first = ClassBalancedBatches(EXAMPLES, LABELS, 4, 2, 7, seed=3)
    model.fit(first, epochs=1, verbose=0)
    resumed = ClassBalancedBatches(EXAMPLES, LABELS, 4, 2, 7, seed=3)
    resumed.current_epoch = 1
    model.fit(resumed, initial_epoch=1, epochs=3, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], weights_after([0, 1, 2], 7), rtol=1e-5)


@pytest.mark.parametrize("built", [False, True])
def test_only_trained_epochs_count(built):
    model, batches = one_unit(), ClassBalancedBatches(EXAMPLES, LABELS, 4, 2, 2, seed=3)
    if built:
        model.build((None, 3))
    model.predict(batches, verbose=0)
    model.evaluate(batches, verbose=0)
    assert batches.current_epoch == 0
    again = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: model.evaluate(batches, verbose=0)
    )
    model.fit(batches, epochs=5, initial_epoch=3, verbose=0, callbacks=[again])
    assert batches.current_epoch == 2
    model.fit(batches, epochs=1, validation_data=batches, verbose=0)
    model.fit(EXAMPLES, LABELS, validation_data=batches, verbose=0)
    model.predict(batches, verbose=0)
    assert batches.current_epoch == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_pickling(workers):
    for seed in (3, None):
        batches = ClassBalancedBatches(EXAMPLES, LABELS, 4, 2, seed=seed, workers=workers)
        batches.current_epoch = 4
        batches[5]
        copy = pickle.loads(pickle.dumps(batches))
        assert copy.current_epoch == 4
        for _ in range(2):
            for (x, y), (other_x, other_y) in zip(batches, copy, strict=True):
                np.testing.assert_array_equal(x, other_x)
                np.testing.assert_array_equal(y, other_y)
            batches.on_epoch_end()
            copy.on_epoch_end()
        indices = pickle.loads(pickle.dumps(batches.indices))
        assert list(indices) == list(batches.indices)


def test_ids_beyond_32_bits():
    wide = LABELS * 2**32
    if keras.backend.backend() == "jax":
        with pytest.raises(ValueError, match="more than 32 bits"):
            ClassBalancedBatches(EXAMPLES, wide, 4, 2, seed=0)
    else:
        y = ClassBalancedBatches(EXAMPLES, wide, 4, 2, seed=0)[0][1]
        expected = ClassBalancedBatches(EXAMPLES, LABELS, 4, 2, seed=0)[0][1]
        np.testing.assert_array_equal(y, expected * 2**32)


# Other loaders, whatever the Keras backend


def test_torch_batch_sampler():
    torch = pytest.importorskip("torch")

    indices = ClassBalancedIndices(LABELS, 4, 2, seed=0)
    dataset = torch.utils.data.TensorDataset(torch.tensor(EXAMPLES), torch.tensor(LABELS))
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=indices)
    assert len(loader) == len(indices)
    for k in range(2):
        for rows, (x, y) in zip(indices.epoch(k), loader, strict=True):
            np.testing.assert_array_equal(x.numpy(), EXAMPLES[rows])
            np.testing.assert_array_equal(y.numpy(), LABELS[rows])


def test_tf_data():
    tf = pytest.importorskip("tensorflow")

    indices = ClassBalancedIndices(LABELS, 4, 2, seed=0)
    dataset = tf.data.Dataset.from_generator(
        lambda: indices, output_signature=tf.TensorSpec([8], "int64")
    ).map(lambda rows: (tf.gather(EXAMPLES, rows), tf.gather(LABELS, rows)))
    for k in range(2):  # each pass over the dataset is the next epoch
        for rows, (x, y) in zip(indices.epoch(k), dataset, strict=True):
            np.testing.assert_array_equal(x.numpy(), EXAMPLES[rows])
            np.testing.assert_array_equal(y.numpy(), LABELS[rows])


def test_grain():
    import grain

    indices = ClassBalancedIndices(LABELS, 4, 2, seed=0)
    for k in range(2):
        dataset = grain.MapDataset.source(indices.epoch(k)).map(
            lambda rows: (EXAMPLES[rows], LABELS[rows])
        )
        for rows, (x, y) in zip(indices.epoch(k), dataset.to_iter_dataset(), strict=True):
            np.testing.assert_array_equal(x, EXAMPLES[rows])
            np.testing.assert_array_equal(y, LABELS[rows])


def test_many_examples():
    labels = np.random.default_rng(0).integers(0, 20_000, 200_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a few classes have one example
        indices = ClassBalancedIndices(labels, 64, 8, seed=0)
    epoch = indices.epoch(0)
    assert epoch.shape == (391, 512)
    by_class = labels[epoch].reshape(391, 64, 8)
    assert (by_class == by_class[..., :1]).all()
    assert (np.diff(np.sort(by_class[..., 0], axis=1), axis=1) > 0).all()
    appearances = np.bincount(by_class[..., 0].ravel())
    assert appearances.max() == 2
