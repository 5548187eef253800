"""A pair loss of several lengths of the same embedding."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import kinfold
from cases import batch
from kinfold import MatryoshkaLoss, losses
from native import assert_close, number, value_and_gradients

SIZES, WEIGHTS = (8, 2, 4), (1.0, 0.25, 0.5)
LOSSES = {
    "circle": lambda: losses.CircleLoss(normalize=True),
    "triplet": lambda: losses.TripletLoss(distance="euclidean"),
    "multi-similarity": lambda: losses.MultiSimilarityLoss(normalize=True),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
def test_the_sum_of_its_prefixes(name: str) -> None:
    y, x = batch(12, d=8)
    r_y, r = batch(7, d=8, seed=1)
    mask, weight = np.arange(7) != 3, np.linspace(0.5, 2, 12).astype("float32")
    loss = MatryoshkaLoss(LOSSES[name](), SIZES, WEIGHTS)
    for references in ({}, {"ref_labels": r_y, "ref_embeddings": r, "ref_mask": mask}):

        def right(x, references=references):
            total = 0.0
            for size, times in zip(SIZES, WEIGHTS, strict=True):
                own = dict(references)
                if own:
                    own["ref_embeddings"] = r[:, :size]
                total = total + times * LOSSES[name]()(y, x[:, :size], weight, **own)
            return total

        value, (dx,) = value_and_gradients(lambda x, o=references: loss(y, x, weight, **o), x)
        expected, (right_dx,) = value_and_gradients(right, x)
        assert_close(value, expected, 1e-6)
        assert_close(dx, right_dx, 1e-5)


@every_loss
def test_in_a_memory(name: str) -> None:
    y, x = batch(12, d=8)
    later_y, later = batch(12, d=8, seed=1)
    memory = kinfold.CrossBatchMemory(MatryoshkaLoss(LOSSES[name](), SIZES, WEIGHTS), 12, 8)
    memory(y, x)
    got = number(memory(later_y, later))
    right = 0.0
    for size, times in zip(SIZES, WEIGHTS, strict=True):
        alone = LOSSES[name]()
        joined = np.concatenate([later[:, :size], x[:, :size]])
        value = alone(
            later_y,
            later[:, :size],
            ref_labels=np.concatenate([later_y, y]),
            ref_embeddings=joined,
        )
        right += times * number(value)
    assert_close(got, right, 1e-5)


def test_trains_and_is_saved(tmp_path: Path) -> None:
    y, x = batch(32, d=8, classes=4)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    loss = MatryoshkaLoss(losses.CircleLoss(normalize=True), (2, 8), name="both")
    model.compile("sgd", loss=loss)
    history = model.fit(x, y, batch_size=32, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").loss
    assert (again.sizes, again.weights, again.name) == ((2, 8), (1.0, 1.0), "both")
    assert number(again(y, x)) == number(loss(y, x))


def test_rows_without_reduction() -> None:
    y, x = batch(12, d=8)
    alone = losses.TripletLoss(distance="euclidean", reduction="none")
    rows = ops.convert_to_numpy(MatryoshkaLoss(alone, (4, 8))(y, x))
    right = sum(ops.convert_to_numpy(alone(y, x[:, :size])) for size in (4, 8))
    np.testing.assert_allclose(rows, right, rtol=1e-6)


def test_refused() -> None:
    y, x = batch(12, d=8)
    loss = losses.TripletLoss(distance="euclidean")
    with pytest.raises(TypeError, match="must be a PairLoss"):
        MatryoshkaLoss(losses.InfoNCELoss(), (4, 8))
    with pytest.raises(ValueError, match="normalize=True"):
        MatryoshkaLoss(losses.CircleLoss(), (4, 8))
    for sizes in ((), (4, 4), (0, 4), (2.5,)):
        with pytest.raises(ValueError, match="sizes"):
            MatryoshkaLoss(loss, sizes)
    with pytest.raises(ValueError, match="one weight for each size"):
        MatryoshkaLoss(loss, (4, 8), (1.0,))
    with pytest.raises(ValueError, match="at least 16 numbers"):
        MatryoshkaLoss(loss, (4, 16))(y, x)
