"""Train on characters with `fit`, and find characters that it never saw.

python examples/fit_on_glyphs.py [EPOCHS]
"""

import sys

import kinfold  # isort: skip
import keras

train, test = kinfold.datasets.glyphs()  # no class of test is in train
model = keras.Sequential(
    [
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(32, 3, 2, activation="relu"),
        keras.layers.Conv2D(64, 3, 2, activation="relu"),
        keras.layers.Flatten(),
        kinfold.layers.L2Embedding(64),
    ]
)
model.compile("adam", loss=kinfold.losses.CircleLoss(margin=0.25))
batches = kinfold.batches.ClassBalancedBatches(*train, classes_per_batch=32, examples_per_class=4)
raw = test.x.reshape(len(test.x), -1) / 255.0
before = kinfold.metrics.retrieval_metrics(raw, test.y)
model.fit(batches, epochs=int(sys.argv[1]) if len(sys.argv) > 1 else 3, verbose=2)
after = kinfold.metrics.retrieval_metrics(model.predict(test.x, verbose=0), test.y)
print(f"recall@1 {before['recall@1']:.3f} -> {after['recall@1']:.3f}")
