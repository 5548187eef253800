"""Learn without labels, from two views of each image: TensorFlow Similarity's second tutorial.

    python examples/unsupervised_hello_world.py --algorithm simsiam

The tutorial trains on photographs. Here the images are characters, drawn by the fonts of
matplotlib, so that nothing is downloaded. Labels serve to measure alone: how often the nearest
character is the same one, among characters that were not trained on. Learning without labels needs
far more steps than a minute on a CPU has: here the loss falls, and the recall stays about where it
is before training.
"""

import argparse
from typing import Any

import keras
import numpy as np

import kinfold
from kinfold.compat.tensorflow_similarity.augmenters import Augmenter
from kinfold.compat.tensorflow_similarity.losses import Barlow, SimCLRLoss, SimSiamLoss, VicReg
from kinfold.compat.tensorflow_similarity.models import create_contrastive_model
from kinfold.compat.tensorflow_similarity.models.heads import get_predictor, get_projector
from kinfold.compat.tensorflow_similarity.samplers import SingleShotMemorySampler
from kinfold.compat.tensorflow_similarity.schedules import WarmupCosineDecay
from kinfold.encoders.augmentation import RandomWindow

SIZE = 28
LOSSES = {
    "simsiam": SimSiamLoss(projection_type="cosine_distance"),
    "simclr": SimCLRLoss(temperature=0.1),
    "barlow": Barlow(),
    "vicreg": VicReg(),
}


class Views(Augmenter):
    """Characters moved and scaled a little, some of them blurred.

    For photographs `SimCLRAugmenter(height, width)` and `BarlowAugmenter` make the usual views. A
    mirrored character is another one, and these have no colours.
    """

    def __init__(self) -> None:
        self.layers = [
            RandomWindow(move=0.1, zoom=0.2),
            keras.layers.RandomGaussianBlur(0.5, 5, (0.1, 2.0), value_range=(0.0, 1.0)),
        ]

    def augment(self, x: Any, y: Any, number: int, is_warmup: bool) -> list[np.ndarray]:
        views = []
        for _ in range(number):
            view = keras.ops.convert_to_tensor(x.astype("float32") / 255)
            for layer in self.layers:
                view = layer(view, training=True)
            views.append(keras.ops.convert_to_numpy(view))
        return views


def backbone() -> keras.Model:
    """Three convolutions and a dense layer: 128 features of an image in [0, 1]."""
    x = inputs = keras.Input((SIZE, SIZE, 1))
    for filters in (32, 64, 128):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(inputs, keras.layers.Dense(128)(keras.layers.Flatten()(x)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithm", choices=list(LOSSES), default="simclr")
    parser.add_argument("--epochs", type=int, default=3, help="Epochs (default 3).")
    parser.add_argument("--steps", type=int, default=50, help="Steps per epoch (default 50).")
    given = parser.parse_args()
    keras.utils.set_random_seed(0)

    train, test = kinfold.datasets.glyphs(size=SIZE)
    views = SingleShotMemorySampler(
        train.x, Views(), examples_per_batch=128, steps_per_epoch=given.steps
    )

    features = backbone()
    model = create_contrastive_model(
        backbone=features,
        projector=get_projector(128, dim=128, num_layers=2),
        predictor=get_predictor(128, hidden_dim=64) if given.algorithm == "simsiam" else None,
        algorithm=given.algorithm,
    )
    steps = given.epochs * given.steps
    rate = WarmupCosineDecay(1e-3, total_steps=steps, warmup_steps=steps // 10)
    model.compile(keras.optimizers.Adam(rate), LOSSES[given.algorithm])

    def recall() -> float:
        embeddings = features.predict(test.x / 255, verbose=0)
        return kinfold.metrics.retrieval_metrics(embeddings, test.y, metrics=("recall@1",))[
            "recall@1"
        ]

    before = recall()
    history = model.fit(views, epochs=given.epochs, verbose=2).history
    print(f"loss {history['loss'][0]:.4f} -> {history['loss'][-1]:.4f}")
    print(f"spread of the projections {history['proj_std'][-1]:.4f}, 0 being a collapse")
    print(f"recall@1 {before:.3f} -> {recall():.3f}")


if __name__ == "__main__":
    main()
