"""`tensorflow_similarity.architectures`: networks that end in an embedding, as `SimilarityModel`s.

Batch normalisation is Keras's own. `kinfold.encoders` has networks that also bring along the
scaling of their input.
"""

from __future__ import annotations

import re
from typing import Any

import keras
from keras import layers

from kinfold.compat.tensorflow_similarity.layers import GeneralizedMeanPooling2D, MetricEmbedding
from kinfold.compat.tensorflow_similarity.models import SimilarityModel
from kinfold.core import checks

_VARIANTS = tuple(f"B{i}" for i in range(8))
_COMMON: dict[str, Any] = {"use_bias": False, "kernel_initializer": "lecun_uniform"}


def EfficientNetSim(  # noqa: N802
    input_shape: tuple[int, int, int],
    embedding_size: int = 128,
    variant: str = "B0",
    weights: str | None = "imagenet",
    trainable: str = "frozen",
    l2_norm: bool = True,
    include_top: bool = True,
    pooling: str | None = "gem",
    gem_p: float = 3.0,
) -> SimilarityModel:
    """Build an EfficientNet with an embedding.

    Args:
        input_shape: height, width and channels of the images, from 0 to 255.
        embedding_size: size of the embedding.
        variant: "B0" to "B7".
        weights: "imagenet", which Keras downloads, a file, or None.
        trainable: "full", "partial" for blocks 5 to 7 and the top, or "frozen".
        l2_norm: whether embeddings have unit norm.
        include_top: whether there is an embedding; without it the features are the output.
        pooling: "gem", "avg" or "max" of the feature map; None leaves it, without an embedding.
        gem_p: exponent of the generalised mean.

    Raises:
        ValueError: an unknown variant, pooling or part to train.
    """
    name = checks.choice(variant.upper(), "variant", _VARIANTS)
    make = getattr(keras.applications, f"EfficientNet{name}")
    network = make(include_top=False, weights=weights, input_shape=tuple(input_shape))
    _train(network, trainable, weights, r"^block[567]|^top")
    return _model(network, embedding_size, l2_norm, include_top, pooling, gem_p)


def ResNet50Sim(  # noqa: N802
    input_shape: tuple[int, int, int],
    embedding_size: int = 128,
    weights: str | None = "imagenet",
    trainable: str = "frozen",
    l2_norm: bool = True,
    include_top: bool = True,
    pooling: str | None = "gem",
    gem_p: float = 3.0,
) -> SimilarityModel:
    """Build a ResNet50 with an embedding.

    Args:
        input_shape: height, width and channels of the images, as
            `keras.applications.resnet.preprocess_input` makes them.
        trainable: "full", "partial" for the last stage, or "frozen".
        embedding_size, weights, l2_norm, include_top, pooling, gem_p: see `EfficientNetSim`.

    Raises:
        ValueError: an unknown pooling or part to train.
    """
    network = keras.applications.ResNet50(
        include_top=False, weights=weights, input_shape=tuple(input_shape)
    )
    _train(network, trainable, weights, r"^conv5|^top")
    return _model(network, embedding_size, l2_norm, include_top, pooling, gem_p)


def ResNet18Sim(  # noqa: N802
    input_shape: tuple[int, int, int],
    embedding_size: int = 128,
    l2_norm: bool = True,
    include_top: bool = True,
    pooling: str | None = "gem",
    gem_p: float = 3.0,
) -> SimilarityModel:
    """Build a ResNet18 for small images, of 32 to 224 pixels, with an embedding.

    The first convolution is of 3 x 3 without a stride; then come four stages of two blocks.

    Args:
        input_shape: height, width and channels of the images.
        embedding_size, l2_norm, include_top, pooling, gem_p: see `EfficientNetSim`.

    Raises:
        ValueError: an unknown pooling.

    Example:

    >>> from kinfold.compat.tensorflow_similarity.architectures import ResNet18Sim
    >>> ResNet18Sim((32, 32, 3), embedding_size=8).output_shape
    (None, 8)
    """
    inputs = keras.Input(tuple(input_shape))
    x = layers.Conv2D(64, 3, padding="same", **_COMMON)(inputs)
    x = layers.Activation("relu")(_normalised(x))
    for filters, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        x = _block(x, filters, stride, convolve=True)
        x = _block(x, filters, 1, convolve=False)
    network = keras.Model(inputs, x, name="resnet18")
    return _model(network, embedding_size, l2_norm, include_top, pooling, gem_p, name="resnet18sim")


def _block(x: Any, filters: int, stride: int, convolve: bool) -> Any:
    shortcut = x
    if convolve:
        shortcut = _normalised(layers.Conv2D(filters, 1, stride, **_COMMON)(x))
    x = layers.Conv2D(filters, 3, stride, padding="same", **_COMMON)(x)
    x = layers.Activation("relu")(_normalised(x))
    x = _normalised(layers.Conv2D(filters, 3, padding="same", **_COMMON)(x))
    return layers.Activation("relu")(layers.Add()([shortcut, x]))


def _normalised(x: Any) -> Any:
    axis = -1 if keras.config.image_data_format() == "channels_last" else 1
    return layers.BatchNormalization(axis=axis, epsilon=1.001e-5)(x)


def _train(network: keras.Model, trainable: str, weights: str | None, part: str) -> None:
    """Freeze what is not to be trained; with weights that are given also the normalisation."""
    checks.choice(trainable, "trainable", ("full", "partial", "frozen"))
    network.trainable = trainable != "frozen"
    for layer in network.layers:
        normalises = weights is not None and isinstance(layer, layers.BatchNormalization)
        if normalises or (trainable == "partial" and not re.search(part, layer.name)):
            layer.trainable = False


def _model(
    network: keras.Model,
    embedding_size: int,
    l2_norm: bool,
    include_top: bool,
    pooling: str | None,
    gem_p: float,
    name: str | None = None,
) -> SimilarityModel:
    checks.choice(pooling, "pooling", ("gem", "avg", "max", None))  # type: ignore[arg-type]
    inputs = keras.Input(network.input_shape[1:])
    x = network(inputs)
    if pooling == "gem":
        x = GeneralizedMeanPooling2D(p=gem_p, name="gem_pool")(x)
    elif pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    elif pooling == "max":
        x = layers.GlobalMaxPooling2D(name="max_pool")(x)
    if include_top and pooling is not None:
        x = (MetricEmbedding if l2_norm else layers.Dense)(embedding_size)(x)
    return SimilarityModel(inputs, x, name=name)
