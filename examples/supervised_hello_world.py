"""Learn from labels, then index, search and decide: TensorFlow Similarity's first tutorial.

    python examples/supervised_hello_world.py --out pictures

The tutorial trains on digits. Here the classes are characters, drawn by the fonts of matplotlib, so
that nothing is downloaded. Half of the classes that are searched were never trained on.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

import kinfold
from kinfold.compat.tensorflow_similarity.callbacks import EvalCallback
from kinfold.compat.tensorflow_similarity.layers import MetricEmbedding
from kinfold.compat.tensorflow_similarity.losses import MultiSimilarityLoss
from kinfold.compat.tensorflow_similarity.models import SimilarityModel
from kinfold.compat.tensorflow_similarity.retrieval_metrics import MapAtK, RecallAtK
from kinfold.compat.tensorflow_similarity.samplers import MultiShotMemorySampler
from kinfold.compat.tensorflow_similarity.visualization import (
    confusion_matrix,
    viz_neigbors_imgs,
)

CLASSES = 20  # searched: half of them known from training


def network(size: int) -> SimilarityModel:
    """Two convolutions with a pooling after each, and an embedding of unit norm."""
    inputs = keras.Input((size, size, 1))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    for filters in (32, 64):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPool2D()(x)
    x = keras.layers.Flatten()(x)
    return SimilarityModel(inputs, MetricEmbedding(64)(x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3, help="Epochs (default 3).")
    parser.add_argument("--steps", type=int, default=100, help="Steps per epoch (default 100).")
    parser.add_argument("--out", type=Path, default=Path("supervised"), help="Folder to write to.")
    given = parser.parse_args()
    keras.utils.set_random_seed(0)

    # Characters that are searched: some of them are trained on, some are new.
    train, new = kinfold.datasets.glyphs(size=28)
    half = CLASSES // 2
    known = np.flatnonzero(np.bincount(train.y) >= 16)[:half]
    unknown = np.flatnonzero(np.bincount(new.y) >= 16)[:half]
    names = [train.names[i] for i in known] + [new.names[i] for i in unknown]

    # Of each searched class 3 examples are indexed, 2 calibrate, and the rest are queries. Of the
    # classes that are trained on, half of the examples are held out for this.
    indexed, calibrating, queries = [], [], []
    held_out = np.zeros(len(train.y), bool)
    for label, (split, one) in enumerate([(train, i) for i in known] + [(new, i) for i in unknown]):
        rows = np.flatnonzero(split.y == one)
        if split is train:
            held_out[rows[: len(rows) // 2]] = True
            rows = rows[: len(rows) // 2]
        parts = rows[:3], rows[3:5], rows[5:]
        for target, part in zip((indexed, calibrating, queries), parts, strict=True):
            target += [(split.x[row], label) for row in part]
    (index_x, index_y), (cal_x, cal_y), (query_x, query_y) = (
        (np.stack([x for x, _ in part]), np.array([y for _, y in part]))
        for part in (indexed, calibrating, queries)
    )

    batches = MultiShotMemorySampler(
        train.x[~held_out],
        train.y[~held_out],
        classes_per_batch=16,
        examples_per_class_per_batch=4,
        steps_per_epoch=given.steps,
    )
    model = network(28)
    model.compile(keras.optimizers.Adam(1e-3), MultiSimilarityLoss(distance="cosine"))
    watch = EvalCallback(
        query_x,
        query_y,
        index_x,
        index_y,
        known_classes=range(half),
        retrieval_metrics=[RecallAtK(k=1)],
    )
    history = model.fit(batches, epochs=given.epochs, verbose=2, callbacks=[watch]).history
    print(f"loss {history['loss'][0]:.4f} -> {history['loss'][-1]:.4f}")

    # Index a few examples of each class, and measure how well the others find their own.
    model.index(index_x, index_y, data=index_x)
    in_index = dict(enumerate(np.bincount(index_y).tolist()))
    found = model.evaluate_retrieval(
        query_x, query_y, [RecallAtK(k=1), RecallAtK(k=3), MapAtK(r=in_index, k=5)]
    )

    # Find the distance up to which a query is matched, and match.
    model.calibrate(cal_x, cal_y, {"precise": 0.95}, calibration_metric="precision")
    matches = np.array(model.match(query_x, cutpoint="optimal", no_match_label=CLASSES))
    right, none = np.mean(matches == query_y), np.mean(matches == CLASSES)
    print(f"{right:.1%} matched and right, {none:.1%} not matched")

    # Pictures: a query with its neighbours, and which classes are taken for which.
    given.out.mkdir(parents=True, exist_ok=True)
    example = len(query_x) // 3
    neighbours = model.single_lookup(query_x[example], k=5)
    viz_neigbors_imgs(
        query_x[example], query_y[example], neighbours, names, (12, 2.5), "Greys", show=False
    ).savefig(given.out / "neighbours.png")
    axes, _ = confusion_matrix(matches, query_y, labels=[*range(CLASSES), "none"], show=False)
    axes.figure.savefig(given.out / "confusion.png")

    # Save the model and its index, and load them again.
    model.save(given.out / "model.keras")
    again = keras.saving.load_model(given.out / "model.keras")
    again.load_index(given.out / "model.keras")
    same = [one.label for one in again.single_lookup(query_x[example], k=5)]
    assert same == [one.label for one in neighbours]
    print(f"recall@1 {found['recall@1']:.3f}")


if __name__ == "__main__":
    main()
