"""Fine-tune a network of keras.applications: its head first, then the last of its layers.

python examples/fine_tune.py [STEPS] [imagenet]

With "imagenet" Keras downloads the weights once; without, they are random, which shows the steps
but not the gain.
"""

import sys

import kinfold  # isort: skip
import keras
import numpy as np

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 50
weights = sys.argv[2] if len(sys.argv) > 2 else None
train, test = kinfold.datasets.glyphs()
colour = [np.repeat(part.x, 3, axis=-1) for part in (train, test)]
model = kinfold.encoders.application("MobileNetV3Small", (32, 32, 3), 64, weights=weights)
layers = model.layers
batches = kinfold.batches.ClassBalancedBatches(
    colour[0], train.y, classes_per_batch=16, examples_per_class=4, batches_per_epoch=steps
)
for trained, rate in ((4, 1e-3), (len(layers) // 4, 1e-4)):  # the head; a quarter of all layers
    for i, layer in enumerate(layers):
        layer.trainable = i >= len(layers) - trained
    model.compile(keras.optimizers.Adam(rate), loss=kinfold.losses.MultiSimilarityLoss())
    model.fit(batches, epochs=1, verbose=2)
found = model.predict(colour[1][:2000], verbose=0)
print(f"recall@1 {kinfold.metrics.retrieval_metrics(found, test.y[:2000])['recall@1']:.3f}")
