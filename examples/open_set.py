"""Known or unknown: a threshold from held-out classes, at the size of the index.

python examples/open_set.py [EPOCHS]
"""

import sys

import kinfold  # isort: skip
import keras
import numpy as np

train, test = kinfold.datasets.glyphs()
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
model.fit(batches, epochs=int(sys.argv[1]) if len(sys.argv) > 1 else 3, verbose=2)

x = model.predict(test.x, verbose=0)
kind = test.y % 4  # 0: to calibrate; 1: strangers; 2 and 3: known
known = kind > 1
new = known & (np.arange(len(x)) % 3 == 0)  # pictures of known characters that are not indexed
items, labels = x[known & ~new], test.y[known & ~new]
index = kinfold.Index(distance="cosine")
index.add(items, labels=labels)
# The nearest item of an index is the nearer, the more there are: so calibrate at its size.
limit = kinfold.thresholds.calibrate_search(
    x[kind == 0], test.y[kind == 0], items, labels, far=0.05
)
print(f"known up to the distance {limit.distance:.3f}: 5% of strangers would be taken for known")
for name, which in (("known", new), ("strangers", kind == 1)):
    found = index.search(x[which], k=1)
    taken = found.distances[:, 0] <= limit.distance
    print(f"{name}: {taken.mean():.1%} taken for known", end="")
    if name == "known":
        right = np.asarray(found.labels)[:, 0] == test.y[which]
        print(f", {right[taken].mean():.1%} of these for the right character", end="")
    print()
