"""Every loss trains in a run on this backend, and a run with its variables goes on bit for bit."""

from typing import Any

import keras
import numpy as np
import pytest

from _kinfold_settings import LOSSES
from kinfold import losses
from kinfold.layers import L2Embedding
from kinfold.training.evaluation import as_numpy, assign
from kinfold.training.run_losses import TwoByTwo
from kinfold.training.settings import Settings

pytestmark = pytest.mark.usefixtures("compile_once")

BACKEND = keras.backend.backend()
CLASSES, EXAMPLES, DIMENSIONS = 6, 4, 5
# Over pairs, with prototypes, with prototypes in one sum, of two sides: what a run tells apart.
OF_EACH_KIND = ("circle", "arc-face", "proxy-anchor", "sig-lip")


def split() -> Any:
    from kinfold.datasets import Split

    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(CLASSES, dtype="int32"), EXAMPLES)
    x = rng.normal(size=(CLASSES, DIMENSIONS))[y] + 0.3 * rng.normal(size=(len(y), DIMENSIONS))
    return Split(x.astype("float32"), y, tuple("abcdef"))


def settings_for(**more: Any) -> Settings:
    common = {"classes_per_batch": 3, "examples_per_class": 4, "steps_per_epoch": 2, "epochs": 3}
    return Settings("vectors.npz", **{**common, **more})


def encoder() -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((DIMENSIONS,))
    return keras.Model(inputs, L2Embedding(3)(inputs))


def fit(trainer: keras.Model, settings: Settings, begin: int, end: int) -> list[float]:
    batches = settings.make_batches(split())
    batches.current_epoch = begin
    history = trainer.fit(batches, initial_epoch=begin, epochs=end, shuffle=False, verbose=0)
    return history.history["loss"]


# Options of a loss that with its own is 0 for classes as far apart as these.
OPTIONS: dict[str, dict[str, Any]] = {}


# The steps are not compiled: what a compiled step makes of a loss is tested with the losses.
# On PyTorch Keras tries angular on made-up embeddings of another norm, of which the loss warns.
@pytest.mark.filterwarnings("ignore:The cosine distance takes embeddings of unit norm")
@pytest.mark.parametrize("name", LOSSES if BACKEND == "torch" else OF_EACH_KIND)
def test_every_loss_trains(name: str) -> None:
    settings = settings_for(loss=name, loss_options=OPTIONS.get(name))
    trainer = settings.make_trainer(encoder(), CLASSES)
    trainer.run_eagerly = True
    before = as_numpy(trainer.variables)
    assert np.isfinite(fit(trainer, settings, 0, 1)).all()
    trained = {variable.path: variable for variable in trainer.trainable_variables}
    own = trainer.loss_layers[0].trainable_variables if trainer.loss_layers else []
    assert len(own) == {"arc-face": 1, "cos-face": 1, "normalized-softmax": 1, "proxy-nca": 1,
                        "sphere-face": 1, "large-margin-softmax": 1, "p2s-grad": 1,
                        "proxy-anchor": 1, "soft-triple": 1, "manifold": 1,
                        "sig-lip": 2}.get(name, 0)  # fmt: skip
    assert len(trained) == 2 + len(own)  # kernel and bias
    for old, new in zip(before, as_numpy(trainer.variables), strict=True):
        assert not np.array_equal(old, new), f"{name} moves nothing: give it OPTIONS here"


@pytest.mark.parametrize(
    "more",
    [
        {"loss": "soft-triple", "chunk": 5},
        {"loss": "triplet", "memory_size": 20, "memory_warmup": 1, "chunk": 5},
        {"loss": "sig-lip"},
    ],
    ids=["prototypes", "memory", "pairs"],
)
def test_a_trainer_goes_on_from_its_variables_bit_for_bit(more: dict[str, Any]) -> None:
    settings = settings_for(**more)
    trainer = settings.make_trainer(encoder(), CLASSES)
    # TensorFlow takes long to compile, and one case is enough.
    eagerly = BACKEND == "tensorflow" and "memory_size" not in more
    trainer.run_eagerly = eagerly
    fit(trainer, settings, 0, 1)
    kept = as_numpy(trainer.variables), as_numpy(trainer.optimizer.variables)
    fit(trainer, settings, 1, 3)

    keras.utils.set_random_seed(9)  # a resumed process has drawn other numbers
    other = settings.make_trainer(encoder(), CLASSES)
    other.run_eagerly = eagerly
    assign(other.variables, kept[0])
    assign(other.optimizer.variables, kept[1])
    fit(other, settings, 1, 3)
    np.testing.assert_equal(as_numpy(other.variables), as_numpy(trainer.variables))
    np.testing.assert_equal(
        as_numpy(other.optimizer.variables), as_numpy(trainer.optimizer.variables)
    )
    if "memory_size" in more:
        memory = other.cross_batch_memory()
        assert int(keras.ops.convert_to_numpy(memory.filled)) == 20


def test_prototypes_begin_anew_from_the_seed_and_not_as_the_weights_of_the_encoder() -> None:
    first, again, other = (
        as_numpy(settings_for(loss="cos-face", seed=seed).make_trainer(encoder(), 9).variables)[-1]
        for seed in (3, 3, 4)
    )
    assert first.shape == (9, 3)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_chunked_trainer_trains_the_encoder_itself() -> None:
    network = encoder()
    trainer = settings_for(chunk=5).make_trainer(network, CLASSES)
    x = split().x
    np.testing.assert_allclose(
        trainer.predict(x, verbose=0), network.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )
    assert [v.path for v in trainer.trainable_variables] == [
        v.path for v in network.trainable_variables
    ]


def test_examples_of_a_class_are_paired_two_by_two() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5, 2)).astype("float32")  # an odd example is left out
    y = np.repeat(np.arange(3), 5)
    info = losses.InfoNCELoss(temperature=0.5)
    got = float(TwoByTwo(info, 5)(y, x.reshape(15, 2)))
    rounds = [float(info(None, x[:, i], ref_embeddings=x[:, i + 1])) for i in (0, 2)]
    assert got == pytest.approx(np.mean(rounds), rel=1e-6)

    got = float(TwoByTwo(losses.ContrastiveLoss(margin=2.0), 5)(y, x.reshape(15, 2)))
    terms = []
    for i in (0, 2):
        near = np.linalg.norm(x[:, i] - x[:, i + 1], axis=1)
        far = np.linalg.norm(x[:, i] - np.roll(x[:, i + 1], 1, axis=0), axis=1)
        terms += [near**2, np.maximum(2.0 - far, 0) ** 2]
    assert got == pytest.approx(np.mean(terms), rel=1e-5)

    with pytest.raises(ValueError, match="takes no weights"):
        TwoByTwo(info, 5)(y, x.reshape(15, 2), np.ones(15))
