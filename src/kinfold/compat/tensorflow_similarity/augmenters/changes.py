"""Random changes of images in [0, 1], of each image by itself."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers, ops

from kinfold.core.checks import Tensor

_COMMON = {"data_format": "channels_last", "dtype": "float32"}
_RANGE = (0.0, 1.0)


def look(x: Tensor, start: Tensor, share: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut a window out of each image, and resize it by linear interpolation.

    Args:
        x: images [n, height, width, channels].
        start: [2, n], where the window begins, as shares of height and width.
        share: [2, n], how high and wide it is, as such shares.
        size: height and width of the result.
    """
    rows = _weights(x.shape[1], size[0], start[0], share[0])
    columns = _weights(x.shape[2], size[1], start[1], share[1])
    return ops.einsum("nqw,npwc->npqc", columns, ops.einsum("nph,nhwc->npwc", rows, x))


def _weights(side: int, size: int, start: Tensor, share: Tensor) -> Tensor:
    """[n, size, side]: row p holds the weights of the pixels that make pixel p of the result."""
    centres = (ops.arange(size, dtype="float32") + 0.5) / size
    at = (start[:, None] + share[:, None] * centres) * side - 0.5
    wide = ops.maximum(share * (side / size), 1.0)[:, None, None]  # a smaller image averages
    distance = ops.abs(at[:, :, None] - ops.arange(side, dtype="float32")) / wide
    weights = ops.relu(1.0 - distance)
    return weights / ops.sum(weights, axis=2, keepdims=True)


class Draws:
    """Random numbers for images, one for each or one for each side of each."""

    def __init__(self) -> None:
        self._seed = keras.random.SeedGenerator()

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw numbers from `low` to `high`, float32."""
        return keras.random.uniform(shape, low, high, "float32", seed=self._seed)

    def sometimes(self, change: Callable[[Tensor], Tensor], p: float, x: Tensor) -> Tensor:
        """Change each image with probability `p`."""
        if p <= 0:
            return x
        chosen = self.uniform((x.shape[0], 1, 1, 1)) < p
        return ops.where(chosen, change(x), x)

    def crop(self, x: Tensor, size: tuple[int, int], area: tuple[float, float]) -> Tensor:
        """Cut out a window of a random area and shape, and resize it.

        The area is a share of the image's; height by width is from 3 : 4 to 4 : 3 of the result's.
        """
        n, height, width = x.shape[:3]
        ratio = self.uniform((n,), 3 / 4, 4 / 3) * (size[1] / size[0]) * (height / width)
        drawn = self.uniform((n,), *area)
        sides = ops.minimum(ops.stack([ops.sqrt(drawn / ratio), ops.sqrt(drawn * ratio)]), 1.0)
        return look(x, self.uniform((2, n)) * (1.0 - sides), sides, size)

    def square(self, x: Tensor, size: tuple[int, int], least: float) -> Tensor:
        """Cut out a square of `least` to 1 of the result's width, and resize it."""
        n, height, width = x.shape[:3]
        side = self.uniform((n,), least * size[1], size[1])
        sides = ops.minimum(ops.stack([side / height, side / width]), 1.0)
        return look(x, self.uniform((2, n)) * (1.0 - sides), sides, size)


class Colours:
    """Random brightness, contrast, saturation and hue, and now and then no colour at all.

    The layers of Keras, in this order; the peer draws the order anew. Results stay in [0, 1].

    Args:
        brightness, contrast, saturation: by how much they change, as shares.
        hue: the most that it moves, of a full turn.
        jitter: probability that any of these changes.
        grey: probability that the colours go.
        multiply: True scales brightness, False shifts it.
    """

    def __init__(
        self,
        brightness: float,
        contrast: float,
        saturation: float,
        hue: float,
        jitter: float,
        grey: float,
        multiply: bool,
    ) -> None:
        self.draws = Draws()
        self.jitter, self.multiply, self.brightness = jitter, multiply, brightness
        low, high = max(0.0, 1.0 - saturation), 1.0 + saturation
        self._layers: list[keras.Layer] = []
        if not multiply:
            self._layers.append(layers.RandomBrightness(min(1.0, brightness), _RANGE, **_COMMON))
        self._layers += [
            layers.RandomContrast(min(1.0, contrast), _RANGE, **_COMMON),
            # The layer multiplies the saturation by f / (1 - f).
            layers.RandomSaturation((low / (1 + low), high / (1 + high)), _RANGE, **_COMMON),
            layers.RandomHue(min(1.0, 2 * hue), _RANGE, **_COMMON),
        ]
        self._grey = layers.RandomGrayscale(grey, **_COMMON)

    def __call__(self, x: Tensor) -> Tensor:
        """Change images [n, height, width, 3] in [0, 1].

        Raises:
            ValueError: other than three channels.
        """
        if x.shape[-1] != 3:
            raise ValueError(
                "Colours are changed of images with 3 channels. Received shape "
                f"{tuple(x.shape)}; leave colours alone, or repeat the channel three times."
            )
        x = self.draws.sometimes(self._changed, self.jitter, x)
        return self._grey(x, training=True)

    def _changed(self, x: Tensor) -> Tensor:
        if self.multiply:
            low, high = max(0.0, 1.0 - self.brightness), 1.0 + self.brightness
            x = ops.clip(x * self.draws.uniform((x.shape[0], 1, 1, 1), low, high), 0.0, 1.0)
        for layer in self._layers:
            x = ops.clip(layer(x, training=True), 0.0, 1.0)
        return x
