"""Two encoders of paired things, with InfoNCE and with SigLIP beside it.

python examples/two_towers.py [STEPS]

A pair is the picture of a character and a noisy row of numbers that describes it, as an image and
its caption would be. Each tower is an encoder of its own.
"""

import sys

import kinfold  # isort: skip
import keras
import numpy as np

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 150
train, test = kinfold.datasets.glyphs()
rng = np.random.default_rng(0)
meaning = rng.normal(size=(1 + max(train.y.max(), test.y.max()), 32)).astype("float32")


def described(y: np.ndarray) -> np.ndarray:
    return meaning[y] + 0.3 * rng.normal(size=(len(y), 32)).astype("float32")


def towers() -> keras.Model:
    """A model from pictures and descriptions to both embeddings, [batch, 2, 64]."""
    picture, words = keras.Input((32, 32, 1)), keras.Input((32,))
    x = keras.layers.Rescaling(1 / 255)(picture)
    for width in (32, 64):
        x = keras.layers.Conv2D(width, 3, 2, activation="relu")(x)
    x = kinfold.layers.L2Embedding(64)(keras.layers.Flatten()(x))
    t = keras.layers.Dense(128, activation="relu")(words)
    t = kinfold.layers.L2Embedding(64)(t)
    both = keras.layers.Lambda(lambda sides: keras.ops.stack(sides, axis=1))([x, t])
    return kinfold.EmbeddingModel([picture, words], both)


losses = {
    "InfoNCE": kinfold.losses.InfoNCELoss(train_temperature=True),
    "SigLIP": kinfold.losses.SigLIPLoss(),
}
for name, loss in losses.items():
    keras.utils.set_random_seed(0)
    model = towers()
    model.compile("adam", loss)
    words = described(train.y)
    ignored = np.zeros(len(train.y), "int32")  # the pairs say what belongs together
    seen = 128 * steps
    rows = rng.choice(len(train.y), seen)
    model.fit([train.x[rows], words[rows]], ignored[rows], batch_size=128, epochs=1, verbose=2)
    first = np.unique(train.y, return_index=True)[1][:200]  # a picture of each of 200 characters
    both = model.predict([train.x[first], described(train.y[first])], verbose=0)
    found = kinfold.metrics.retrieval_metrics(
        both[:, 0], train.y[first], both[:, 1], train.y[first], metrics=["recall@1", "recall@5"]
    )
    print(f"{name}: the description of a picture among 200: {found}")
