"""Collapsed embeddings: what is one, what is none, and that `fit` tells it once."""

import re
import warnings

import keras
import numpy as np
import pytest

from kinfold import encoders
from kinfold.callbacks import RetrievalEvaluation
from kinfold.losses import PairContrastiveLoss
from kinfold.metrics import collapse
from kinfold.training import evaluation

RNG = np.random.default_rng(0)
X = RNG.standard_normal((96, 6)).astype("float32")
Y = np.arange(96) % 8


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def classes_apart(classes: int, noise: float) -> np.ndarray:
    """Embeddings of a model that has learnt all it can: each class a point."""
    centres = RNG.normal(size=(classes, 16))
    return unit(np.repeat(centres, 6, axis=0) + noise * RNG.normal(size=(6 * classes, 16)))


@pytest.mark.parametrize(
    ("embeddings", "classes", "found"),
    [
        (unit(np.ones(16) + 4e-3 * RNG.normal(size=(60, 16))), 10, "one point.*differ by 0.0"),
        (np.zeros((60, 16)), 10, "one point: they differ by 0 of"),
        (unit(np.outer(RNG.normal(size=60), np.ones(16))), 10, "one line: of their 16.*use 1.0"),
        (unit(np.stack([*np.ones((7, 60)), RNG.normal(size=60)], 1)), 10, "one line"),
        (np.eye(60), 10, "one distance"),
        (RNG.normal(size=(60, 16)), 10, ""),
        (10 + RNG.normal(size=(60, 16)), 10, ""),
        (unit(RNG.normal(size=(4000, 2))), 10, ""),
        (RNG.normal(size=(60, 1)), 10, ""),
        (classes_apart(2, 0.0), 2, ""),
        (classes_apart(3, 1e-3), 3, ""),
        (classes_apart(10, 0.0), 10, ""),
        (np.zeros((60, 16)), 1, ""),
        (np.repeat(RNG.normal(size=(64, 16)), 16, axis=0).reshape(64, 16, 16)[:, 0], 64, ""),
    ],
)
def test_what_has_collapsed_and_what_has_not(
    embeddings: np.ndarray, classes: int, found: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = collapse.find(embeddings, classes)
    if found:
        assert re.search(found, said), said
    else:
        assert said == ""


def test_labels_that_come_round_are_no_collapse() -> None:
    points = unit(RNG.normal(size=(8, 16)))
    assert collapse.find(points[np.arange(4096) % 8], 8) == ""


def test_the_effective_rank_is_the_number_of_equal_axes() -> None:
    for rank in (1, 3, 8):
        x = np.zeros((2 * rank, 8))
        x[np.arange(2 * rank), np.arange(2 * rank) // 2] = np.tile([1.0, -1.0], rank)
        assert collapse._effective_rank(x) == pytest.approx(rank)


def embedder(*before: keras.Layer) -> keras.Model:
    inputs = keras.Input((6,))
    x = inputs
    for layer in (*before, keras.layers.Dense(8), keras.layers.UnitNormalization()):
        x = layer(x)
    return keras.Model(inputs, x)


class Steps(keras.utils.PyDataset):
    """The same batch fifteen times an epoch."""

    def __len__(self) -> int:
        return 15

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return X[:32], Y[:32]


def test_fit_warns_once_of_a_net_that_collapses() -> None:
    keras.utils.set_random_seed(0)
    model = embedder(keras.layers.Dense(16, "relu"))
    # With this margin the loss is met where all embeddings are the same.
    model.compile(keras.optimizers.Adam(0.1), PairContrastiveLoss(negative_margin=1e-6))
    evaluation_ = RetrievalEvaluation(X, Y, metrics=("recall@1",))
    with pytest.warns(UserWarning, match=r"Epoch \d+: .* one point.*lower the learning") as seen:
        model.fit(Steps(), epochs=4, verbose=0, callbacks=[evaluation_])
    assert len([w for w in seen if "one point" in str(w.message)]) == 1
    assert evaluation_.collapsed


def test_fit_warns_of_a_net_with_a_bottleneck() -> None:
    model = embedder(keras.layers.Dense(1, use_bias=False))
    model.layers[-2].bias.assign(np.zeros(8))
    model.compile(keras.optimizers.SGD(0.0), PairContrastiveLoss())
    with pytest.warns(UserWarning, match="one line: of their 8 dimensions they use 1.0"):
        model.fit(X, Y, verbose=0, callbacks=[RetrievalEvaluation(X, Y, metrics=("recall@1",))])


def test_a_net_that_learns_is_not_warned_of() -> None:
    # Warnings are errors under pytest.
    model = embedder(keras.layers.Dense(16, "relu"))
    model.compile("adam", PairContrastiveLoss())
    evaluation_ = RetrievalEvaluation(X, Y, metrics=("recall@1",))
    evaluation_.set_model(model)
    evaluation_.on_epoch_end(-1, {})  # before training
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[evaluation_])
    assert not evaluation_.collapsed


def test_an_untrained_convnet_is_not_warned_of() -> None:
    x = RNG.integers(0, 256, (100, 16, 16, 1), dtype="uint8")
    vectors = evaluation.embed(encoders.small_convnet((16, 16, 1), 32), x)
    assert collapse.find(vectors, 20) == ""
