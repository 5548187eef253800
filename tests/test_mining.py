"""Confused classes: which they are, and the batches that bring them together."""

from __future__ import annotations

import pickle
import re
from collections import Counter

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinfold.batches import ClassBalancedBatches, ClassBalancedIndices, confused_classes
from kinfold.losses import CircleLoss

# confused_classes


def by_hand(x, y, k, margin, most):
    """The definition, pair by pair in float64."""
    x = x.astype("float64")
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    similar = x @ x.T
    classes = np.unique(y)
    counts = {one: Counter() for one in classes.tolist()}
    ranks = {one: Counter() for one in classes.tolist()}
    for a in range(len(x)):
        others = sorted((i for i in range(len(x)) if y[i] != y[a]), key=lambda i: -similar[a, i])
        positives = [similar[a, i] for i in range(len(x)) if y[i] == y[a] and i != a]
        for rank, i in enumerate(others[:k]):
            highest = max(positives, default=-np.inf) - (margin or 0)
            if margin is None or similar[a, i] < highest:
                counts[y[a]][y[i]] += 1
                ranks[y[a]][y[i]] += rank
    table = np.full((len(classes), most), -1)
    for row, one in enumerate(classes.tolist()):
        found = sorted(counts[one], key=lambda b: (-counts[one][b], ranks[one][b], b))[:most]
        table[row, : len(found)] = np.searchsorted(classes, found)
    return table


@pytest.mark.parametrize("margin", [None, 0.0, 0.1])
@pytest.mark.parametrize(("k", "most"), [(1, 1), (3, 2), (7, 10), (500, 3)])
def test_is_the_definition(k, most, margin):
    rng = np.random.default_rng(k)
    y = rng.permutation(np.repeat([4, -2, 9, 5, 30, 7], [1, 2, 3, 5, 8, 12]))
    x = (rng.normal(size=(31, 4))[y] + rng.normal(size=(31, 4))).astype("float32")
    found = confused_classes(x, y, k=k, margin=margin, most=most)
    np.testing.assert_array_equal(found, by_hand(x, y, k, margin, most))
    assert found.dtype == np.int64


@pytest.mark.once
def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(9), [2, 3, 4, 5, 6, 7, 8, 9, 30])
    x = rng.normal(size=(len(y), 5)).astype("float32")
    whole = confused_classes(x, y)
    monkeypatch.setitem(confused_classes.__globals__, "_FOUND", 100)
    np.testing.assert_array_equal(confused_classes(x, y), whole)


@pytest.mark.once
def test_the_guard_leaves_out_what_is_closer_than_the_nearest_positive():
    # On a line: class 0 at 0 and 1; class 1, the same thing mislabelled, at 0.1; class 2 at 2.5.
    x = np.array([[0.0], [1.0], [0.1], [8.1], [2.5], [2.6]], "float32")
    y = [0, 0, 1, 1, 2, 2]

    def of_class_0(margin):
        return confused_classes(x, y, 2, margin, 2, "euclidean")[0].tolist()

    assert of_class_0(None) == [1, 2]
    # From 0 the example at 0.1 is closer than the positive at 1; from 1, so is it, at 0.9.
    assert of_class_0(0.0) == [2, -1]
    # From 1 the example at 2.5 is 0.5 further than the positive; from 0, 1.5 and 1.6.
    assert of_class_0(1.0) == [2, -1]
    assert of_class_0(1.7) == [-1, -1]


@pytest.mark.once
def test_an_example_alone_counts_nothing_but_is_counted():
    x = np.array([[0.0], [1.0], [1.2]], "float32")
    assert confused_classes(x, [0, 1, 1], distance="euclidean", most=1).tolist() == [[-1], [0]]
    assert confused_classes(x, [5, 5, 5], most=2).tolist() == [[-1, -1]]


@pytest.mark.once
def test_a_similarity_ranks_the_largest_first():
    x = np.array([[3.0, 0], [3, 0.1], [1, 0], [1, 0.1], [2, 0], [2, 0.1]], "float32")
    found = confused_classes(x, [0, 0, 1, 1, 2, 2], 2, None, 1, "inner_product")
    assert found.ravel().tolist() == [2, 0, 0]


@pytest.mark.once
@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be 1 or more"),
        ({"most": 1.5}, TypeError, "most must be an integer"),
        ({"margin": -0.1}, ValueError, "margin must be None, or a number from 0 on. Received -0.1"),
        ({"margin": np.nan}, ValueError, "margin must be None, or a number from 0 on"),
        ({"labels": [0, 0, 1]}, ValueError, "same number of rows. Received 4 and 3"),
        ({"labels": [0.0] * 4}, TypeError, "`labels` must hold integer class ids"),
        ({"embeddings": np.full((4, 2), np.nan)}, ValueError, "must be finite"),
    ],
)
def test_bad_input(changed, error, message):
    given = {"embeddings": np.eye(4, dtype="float32"), "labels": [0, 0, 1, 1], **changed}
    with pytest.raises(error, match=re.escape(message)):
        confused_classes(**given)


# Batches by a table


def spread(counts):
    return max(counts) - min(counts)


@st.composite
def requests(draw):
    sizes = draw(st.lists(st.integers(1, 6), min_size=3, max_size=20))
    classes = len(sizes)
    table = st.lists(st.integers(-1, classes - 1), min_size=3, max_size=3)
    sizes[:2] = [2, 2]
    usable = sum(size > 1 for size in sizes)
    arguments = {
        "labels": draw(st.permutations(np.repeat(np.arange(classes) * 3, sizes).tolist())),
        "classes_per_batch": draw(st.integers(1, usable)),
        "examples_per_class": draw(st.integers(1, 4)),
        "batches_per_epoch": draw(st.integers(1, 15)),
        "seed": draw(st.integers(0, 2**63)),
    }
    rows = draw(st.lists(table, min_size=classes, max_size=classes))
    return arguments, rows, draw(st.floats(0, 1))


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:.* have one example")
@settings(max_examples=200, deadline=None)
@given(requests(), st.integers(0, 100))
def test_every_batch_and_epoch_by_a_table(request, k):
    arguments, table, share = request
    labels, classes = np.array(arguments["labels"]), arguments["classes_per_batch"]
    examples = arguments["examples_per_class"]
    indices, again = ClassBalancedIndices(**arguments), ClassBalancedIndices(**arguments)
    plain = indices.epoch(k)
    indices.set_confused(table, share)
    again.set_confused(np.array(table, "int32"), share)
    epoch = indices.epoch(k)

    assert epoch.shape == plain.shape
    assert epoch.dtype == np.int64
    np.testing.assert_array_equal(epoch, again.epoch(k))
    for batch in epoch:
        per_class = Counter(labels[batch].tolist())
        assert len(per_class) == classes
        assert set(per_class.values()) == {examples}
        for label in per_class:
            drawn = Counter(batch[labels[batch] == label].tolist())
            assert len(drawn) == min(np.sum(labels == label), examples)
    usable = [label for label in np.unique(labels) if np.sum(labels == label) > 1]
    assert spread([np.sum(labels[epoch] == label) // examples for label in usable]) <= 1
    for label in usable:
        times = np.bincount(epoch.ravel(), minlength=len(labels))[labels == label]
        assert spread(times) <= 1
    before, after = (np.bincount(labels[one].ravel()) for one in (plain, epoch))
    np.testing.assert_array_equal(after, before)
    # The random part of each batch is as it was.
    kept = classes - round(share * classes)
    for before, after in zip(labels[plain][:, ::examples], labels[epoch], strict=True):
        assert set(before[:kept].tolist()) <= set(after.tolist())
    indices.set_confused(None)
    np.testing.assert_array_equal(indices.epoch(k), plain)


PARTNER = np.arange(200).reshape(-1, 2)[:, ::-1].reshape(-1, 1)  # 0 with 1, 2 with 3, ...
LABELS = np.repeat(np.arange(200), 3)


def share_with_partner(indices):
    """How many of the classes of a batch have their partner in it, on average."""
    hands = LABELS[indices.epoch(3)][:, :: indices.examples_per_class]
    return np.mean([np.isin(PARTNER[hand, 0], hand).mean() for hand in hands])


@pytest.mark.once
@pytest.mark.parametrize("batches", [13, 60])  # an epoch holds each class once, or often
def test_confused_classes_share_batches(batches):
    indices = ClassBalancedIndices(LABELS, 16, 2, batches, seed=0)
    assert share_with_partner(indices) < 0.2
    indices.set_confused(PARTNER)
    assert share_with_partner(indices) > 0.45
    hands = LABELS[indices.epoch(3)][:, ::2]
    beside = (PARTNER[hands[:, :-1], 0] == hands[:, 1:]).sum()
    assert beside > 0.2 * hands.size  # a class stands beside those that it brought
    indices.set_confused(PARTNER, share=0)
    assert share_with_partner(indices) < 0.2


@pytest.mark.once
def test_tables_and_epochs_differ():
    indices = ClassBalancedIndices(LABELS, 16, 2, 13, seed=0)
    plain = indices.epoch(0)
    indices.set_confused(np.full((200, 4), -1))
    np.testing.assert_array_equal(LABELS[indices.epoch(0)], LABELS[plain])
    indices.set_confused(PARTNER)
    first, second = indices.epoch(0), indices.epoch(1)
    assert not np.array_equal(first, plain)
    assert not np.array_equal(first, second)
    copy = pickle.loads(pickle.dumps(indices))
    np.testing.assert_array_equal(copy.epoch(1), second)


@pytest.mark.once
@pytest.mark.parametrize("size", [2, 3, 5])
def test_shares_in_order_are_the_batch(size):
    whole = ClassBalancedIndices(LABELS, 8, 2, 9, seed=0)
    shares = [ClassBalancedIndices(LABELS, 8, 2, 9, 0, share=(r, size)) for r in range(size)]
    for one in (whole, *shares):
        one.set_confused(PARTNER)
    parts = np.concatenate([one.epoch(2) for one in shares], axis=1)
    np.testing.assert_array_equal(parts, whole.epoch(2))


@pytest.mark.once
def test_classes_with_one_example_are_never_brought():
    labels = [0, 1, 1, 2, 2, 3, 3, 4, 4]
    with pytest.warns(UserWarning, match="have one example"):
        indices = ClassBalancedIndices(labels, 2, 2, 20, seed=0)
    indices.set_confused([[1], [0], [0], [4], [3]])
    hands = np.array(labels)[indices.epoch(0)][:, ::2]
    assert hands.min() == 1
    pairs = Counter(tuple(sorted(hand)) for hand in hands.tolist())
    assert pairs[3, 4] == max(pairs.values()) > 5


@pytest.mark.once
@pytest.mark.parametrize(
    ("table", "share", "error", "message"),
    [
        (np.zeros((200, 2)), 0.5, TypeError, "must be integers. Received dtype float64"),
        (np.zeros((199, 2), int), 0.5, ValueError, "each of the 200 classes. Received shape (199"),
        (np.zeros(200, int), 0.5, ValueError, "Received shape (200,)"),
        (np.full((200, 1), 200), 0.5, ValueError, "from -1 to 199. Received values from 200 to"),
        (np.full((200, 1), -2), 0.5, ValueError, "from -1 to 199. Received values from -2"),
        (PARTNER, 1.5, ValueError, "share must be from 0 to 1. Received 1.5"),
    ],
)
def test_bad_tables(table, share, error, message):
    indices = ClassBalancedIndices(LABELS, 16, 2, 13, seed=0)
    with pytest.raises(error, match=re.escape(message)):
        indices.set_confused(table, share)


@pytest.mark.once
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_for_fit_take_a_table_between_epochs(workers):
    x = np.arange(600.0)[:, None]
    batches = ClassBalancedBatches(x, LABELS, 16, 2, 13, seed=0, workers=workers)
    indices = ClassBalancedIndices(LABELS, 16, 2, 13, seed=0)
    np.testing.assert_array_equal(batches[0][0][:, 0], indices.epoch(0)[0])
    batches.set_confused(PARTNER)
    indices.set_confused(PARTNER)
    for batch, rows in zip(batches, indices.epoch(0), strict=True):
        np.testing.assert_array_equal(batch[0][:, 0], rows)


@pytest.mark.once
def test_many_classes():
    labels = np.repeat(np.arange(20_000), 10)
    indices = ClassBalancedIndices(labels, 32, 4, seed=0)
    indices.set_confused(np.random.default_rng(0).integers(0, 20_000, (20_000, 10)))
    hands = labels[indices.epoch(0)][:, ::4]
    assert spread(np.bincount(hands.ravel(), minlength=20_000)) <= 1
    assert (np.diff(np.sort(hands, axis=1), axis=1) > 0).all()


def small_model():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_initializer="ones")])
    model.layers[0].kernel.assign(np.random.default_rng(1).normal(size=(4, 3)))
    model.compile(keras.optimizers.SGD(0.1), CircleLoss(gamma=8.0, normalize=True))
    return model


class Mine(keras.callbacks.Callback):
    """As docs/training.md shows it."""

    def __init__(self, x, y, batches):
        super().__init__()
        self.x, self.y, self.batches = x, y, batches

    def on_epoch_begin(self, epoch, logs=None):
        if epoch:
            embeddings = self.model.predict(self.x, verbose=0)
            self.batches.set_confused(confused_classes(embeddings, self.y))


@pytest.mark.parametrize("workers", [1, 2])
def test_fit_trains_on_the_batches_of_the_table(workers):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(30), 4)
    x = (rng.normal(size=(30, 4))[y] + 0.3 * rng.normal(size=(120, 4))).astype("float32")
    batches = ClassBalancedBatches(x, y, 6, 2, 4, seed=0, workers=workers)
    model = small_model()
    model.fit(batches, epochs=3, verbose=0, callbacks=[Mine(x, y, batches)])

    other, indices = small_model(), ClassBalancedIndices(y, 6, 2, 4, seed=0)
    plain, plain_indices = small_model(), ClassBalancedIndices(y, 6, 2, 4, seed=0)
    for k in range(3):
        if k:
            indices.set_confused(confused_classes(other.predict(x, verbose=0), y))
        for rows in indices.epoch(k):
            other.train_on_batch(x[rows], y[rows])
        for rows in plain_indices.epoch(k):
            plain.train_on_batch(x[rows], y[rows])
    expected = other.get_weights()[0]
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=1e-4, atol=1e-6)
    assert np.abs(plain.get_weights()[0] - expected).max() > 1e-3  # the comparison tells them apart
