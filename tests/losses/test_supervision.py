"""Supervision beyond class ids: several labels an example, and which pairs are of one kind."""

import keras
import numpy as np
import pytest
from keras import ops

from cases import ENGINE, Case, batch
from kinfold import losses
from kinfold.layers import L2Embedding
from native import assert_close, float64, number, value_and_gradients

# How pairs are told apart is the base's; these differ in what they do with them.
SOME = ("circle", "pair_contrastive", "sup_con", "triplet_all", "fast_ap")
some_losses = pytest.mark.parametrize("case", [c for c in ENGINE if c.name in SOME], ids=str)


def one_hot(y: np.ndarray) -> np.ndarray:
    return np.eye(y.max() + 1, dtype="int32")[y]


@some_losses
@pytest.mark.parametrize("block_size", [None, 4])
def test_one_hot_labels_and_pairs_equal_class_ids(case: Case, block_size: int | None) -> None:
    y, x = batch(13, classes=6)
    loss = case.build(block_size=block_size)
    expected, (dx,) = value_and_gradients(lambda x: loss(y, x), x)
    for labels in (one_hot(y), y[:, None] == y):
        value, (gradient,) = value_and_gradients(lambda x, labels=labels: loss(labels, x), x)
        assert_close(value, expected, 2e-6)
        assert_close(gradient, dx, 2e-5)


@some_losses
def test_with_references(case: Case) -> None:
    y, x = batch(9)
    ref_y, ref_x = batch(14, seed=1)
    loss = case.build(block_size=4)
    expected = float(loss(y, x, ref_labels=ref_y, ref_embeddings=ref_x))
    hot = loss(np.eye(5, dtype="int8")[y], x, ref_labels=one_hot(ref_y), ref_embeddings=ref_x)
    assert_close(float(hot), expected, 2e-6)
    pairs = loss(y[:, None] == ref_y, x, ref_embeddings=ref_x)
    assert_close(float(pairs), expected, 2e-6)


def test_examples_that_share_one_label_of_several_are_positives() -> None:
    labels = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]])
    shares = np.array(
        [[(a * b).any() for b in labels] for a in labels]  # an example without labels has no kind
    )
    x = batch(5)[1]
    loss = losses.CircleLoss()
    assert_close(float(loss(labels, x)), float(loss(shares, x)), 1e-6)
    assert not shares[4].any()


def test_fit_takes_them() -> None:
    y, x = batch(24, d=6)
    model = keras.Sequential([L2Embedding(4)])
    model.compile("sgd", loss=losses.CircleLoss())
    history = model.fit(x, one_hot(y), batch_size=12, epochs=2, verbose=0)
    assert np.all(np.isfinite(history.history["loss"]))
    ids = keras.Sequential([L2Embedding(4)])
    ids.build((None, 6))
    model.set_weights(ids.get_weights())
    ids.compile("sgd", loss=losses.CircleLoss())
    a = model.evaluate(x, one_hot(y), batch_size=24, verbose=0)
    b = ids.evaluate(x, y, batch_size=24, verbose=0)
    assert_close(a, b, 1e-5)


def test_errors_say_what_to_pass() -> None:
    x = batch(4)[1]
    loss = losses.CircleLoss()
    with pytest.raises(TypeError, match=r"integers 0 and 1.*float32.*astype"):
        loss(np.ones((4, 3), "float32"), x)
    with pytest.raises(ValueError, match=r"0 and 1 for each.*value 2"):
        loss(np.full((4, 3), 2), x)
    with pytest.raises(ValueError, match=r"column for each row of `y_pred`, 4.*\(4, 3\)"):
        loss(np.ones((4, 3), "bool"), x)
    with pytest.raises(ValueError, match="`ref_labels` must be None"):
        loss(np.ones((4, 4), "bool"), x, ref_labels=np.arange(4), ref_embeddings=x)
    with pytest.raises(ValueError, match="both be class ids or both"):
        loss(np.ones((4, 3), "int32"), x, ref_labels=np.arange(4), ref_embeddings=x)
    with pytest.raises(ValueError, match="LiftedStructureLoss needs the negatives"):
        losses.LiftedStructureLoss()(np.ones((4, 4), "bool"), x)
    assert ops.convert_to_numpy(loss(np.arange(4), x)) == 0.0


@pytest.mark.parametrize("block_size", [None, 3])
def test_graded_positives_count_by_their_common_labels(block_size: int | None) -> None:
    x = batch(9, dtype="float64")[1]
    labels = (np.random.default_rng(0).random((9, 4)) < 0.5).astype("int32")
    rows = []
    for i in range(9):
        share = {
            j: np.sum(labels[i] & labels[j]) / np.sum(labels[i] | labels[j])
            for j in range(9)
            if j != i and np.any(labels[i] | labels[j])
        }
        logit = {j: x[i] @ x[j] / 0.1 for j in share if j != i}
        every = [x[i] @ x[j] / 0.1 for j in range(9) if j != i]
        if any(share.values()) and not all(share.get(j) for j in range(9) if j != i):
            lse = np.logaddexp.reduce(every)
            weights = [share[j] for j in logit]
            rows.append(np.average([lse - logit[j] for j in logit], weights=weights))
    with float64():
        loss = losses.SupConLoss(graded=True, block_size=block_size, dtype="float64")
        assert_close(number(loss(labels, x)), np.mean(rows), 1e-6)
    assert losses.SupConLoss.from_config(loss.get_config()).graded
    y, x = batch(13, classes=6)
    alone = number(losses.SupConLoss()(y, x))
    assert_close(number(losses.SupConLoss(graded=True)(one_hot(y), x)), alone, 1e-5)
    for other in (y, y[:, None] == y):
        with pytest.raises(ValueError, match=r"SupConLoss\(graded=True\) weighs positives"):
            losses.SupConLoss(graded=True)(other, x)
