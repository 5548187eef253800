"""Random changes to the images of a batch, by layers of Keras, in training alone."""

from typing import Any

import keras
from keras import layers, ops

from _kinfold_settings import AUGMENTATIONS
from kinfold.core.checks import Tensor

KINDS = tuple(kind for kind in AUGMENTATIONS if kind != "auto")  # which a run fills in


def make_layers(
    kind: str, seed: int, value_range: tuple[float, float] = (0.0, 255.0)
) -> list[keras.Layer]:
    """Build the layers that change images [n, height, width, channels].

    Each image is changed in its own way. At inference the layers do nothing.

    Args:
        kind: "light" moves images, and stretches or shrinks them, by up to a tenth of each side:
            for anything, letters and signs too. "photo" also mirrors left and right, and changes
            brightness and contrast by up to a fifth: where a mirrored thing is the same thing.
            "none" does nothing.
        seed: of the random changes. The layers count on from it in their own state.
        value_range: the lowest and the highest value of the images: "photo" changes them as shares
            of it, and keeps within it.

    Returns:
        The layers, to call one after another.

    Raises:
        ValueError: the kind is unknown.

    Example:

    >>> from kinfold.encoders.augmentation import make_layers
    >>> [layer.name for layer in make_layers("photo", seed=0)]
    ['window', 'mirror', 'brightness', 'contrast']
    """
    if kind not in KINDS:
        raise ValueError(f"`augment` must be one of {', '.join(KINDS)}. Received: {kind!r}.")
    if kind == "none":
        return []
    # In float32 also under mixed precision: half precision would move pixels by whole rows.
    made: list[keras.Layer] = [RandomWindow(seed=seed, dtype="float32", name="window")]
    if kind == "photo":
        common = {"data_format": "channels_last", "dtype": "float32"}
        made += [
            layers.RandomFlip("horizontal", seed=seed + 1, name="mirror", **common),
            layers.RandomBrightness(0.2, value_range, seed=seed + 2, name="brightness", **common),
            layers.RandomContrast(0.2, value_range, seed=seed + 3, name="contrast", **common),
        ]
    return made


@keras.saving.register_keras_serializable("kinfold")
class RandomWindow(keras.layers.Layer):
    """Look at each image through a window of its own, moved and scaled at random, in training.

    As RandomTranslation and RandomZoom of Keras together, with their `fill_mode="nearest"`. These
    two warp one image after another on torch, and take longer there than training a small network;
    along one axis such a change is a product with a matrix of linear interpolation.

    Args:
        move: the most that it moves, as a share of the height and of the width.
        zoom: the most that it scales, each side by itself, as a share.
        seed: of the random changes.
        **kwargs: those of `keras.layers.Layer`.

    Call arguments:
        images: [n, height, width, channels], floating. Returns the same shape.
    """

    def __init__(
        self, move: float = 0.1, zoom: float = 0.1, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.move, self.zoom, self.seed = move, zoom, seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        if not training:
            return images
        shape = (2, 2, ops.shape(images)[0])
        drawn = keras.random.uniform(shape, -1.0, 1.0, self.compute_dtype, seed=self.generator)
        return look(images, 1.0 + self.zoom * drawn[0], self.move * drawn[1])

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape

    def get_config(self) -> dict[str, Any]:
        given = {"move": self.move, "zoom": self.zoom, "seed": self.seed}
        return {**super().get_config(), **given}


def look(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Look at images [n, height, width, channels] through windows.

    Args:
        images: floating.
        scale: [2, n], height and width of the window, as shares of those of the image.
        shift: [2, n], how far its centre is from that of the image, down and right, as such shares.

    Returns:
        What is in the windows, in the shape of `images`, by linear interpolation. What is outside
        an image is as its edge.
    """
    rows = _interpolation(images.shape[1], scale[0], shift[0])
    columns = _interpolation(images.shape[2], scale[1], shift[1])
    images = ops.einsum("nph,nhwc->npwc", rows, images)
    return ops.einsum("nqw,npwc->npqc", columns, images)


def _interpolation(side: int, scale: Tensor, shift: Tensor) -> Tensor:
    """[n, side, side]: row p holds the weights of the pixels that make pixel p of the window."""
    pixels = ops.arange(side, dtype=scale.dtype)
    from_centre = pixels - (side - 1) / 2
    at = (side - 1) / 2 + scale[:, None] * from_centre + side * shift[:, None]
    at = ops.clip(at, 0, side - 1)
    return ops.relu(1 - ops.abs(at[:, :, None] - pixels))
