"""`tensorflow_similarity.augmenters.BarlowAugmenter`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold.compat.tensorflow_similarity.augmenters.augmenter import (
    Augmenter,
    images,
    no_cpu_count,
)
from kinfold.compat.tensorflow_similarity.augmenters.changes import Colours, Draws
from kinfold.core import checks
from kinfold.core.checks import Tensor


class BarlowAugmenter(Augmenter):
    """Barlow Twins' views: a square crop, a mirror, other colours, a blur, and solarisation.

    Args:
        width, height: of a view. The square is of 75% to 100% of the width, in pixels.
        flip_probability: how often an image is mirrored or left as it is, by a coin.
        brightness_multiplier, contrast_multiplier, saturation_multiplier: by how much they change.
        hue_multiplier: the most that the hue moves.
        jitter_probability: how often any of these changes.
        greyscale_probability: how often the colours go.
        blur_probability: how often an image is blurred.
        blur_min_sigma, blur_max_sigma: the width of the blur, in pixels.
        solarize_probability: how often bright pixels are inverted.
        solarize_pixel_min: 0.
        solarize_pixel_max: pixels above the threshold become this, less their value.
        solarize_thresh: see above. The views are from 0 to 1, so that the default inverts nothing,
            here and there; pass 0.5 with `solarize_pixel_max=1`.
        num_cpu: None.

    Raises:
        ValueError: a `num_cpu` or a `solarize_pixel_min`, which have no use; or other images.

    Call arguments:
        x: images [batch, height, width, 3] from 0 to 1. The views are float32 from 0 to 1.

    Reference:
        Zbontar et al., Barlow Twins, 2021, https://arxiv.org/abs/2103.03230
    """

    def __init__(
        self,
        width: int,
        height: int,
        flip_probability: float = 0.5,
        brightness_multiplier: float = 0.8,
        contrast_multiplier: float = 0.6,
        saturation_multiplier: float = 0.6,
        hue_multiplier: float = 0.2,
        jitter_probability: float = 0.8,
        greyscale_probability: float = 0.2,
        blur_probability: float = 0.2,
        blur_min_sigma: float = 0,
        blur_max_sigma: float = 1,
        solarize_probability: float = 0.2,
        solarize_pixel_min: float = 0,
        solarize_pixel_max: float = 255,
        solarize_thresh: float = 10,
        num_cpu: int | None = None,
    ) -> None:
        no_cpu_count(num_cpu)
        if solarize_pixel_min != 0:
            raise ValueError(
                "`solarize_pixel_min` has no use: pixels become solarize_pixel_max less their "
                f"value. Leave it out. Received: solarize_pixel_min={solarize_pixel_min!r}."
            )
        self.size = checks.count(height, "height"), checks.count(width, "width")
        self.flip_probability = _probability(flip_probability, "flip_probability")
        self.solarize_probability = _probability(solarize_probability, "solarize_probability")
        self.solarize_pixel_max = checks.number(solarize_pixel_max, "solarize_pixel_max")
        self.solarize_thresh = checks.number(solarize_thresh, "solarize_thresh")
        self._draws = Draws()
        self._mirror = keras.layers.RandomFlip(
            "horizontal", data_format="channels_last", dtype="float32"
        )
        self._colours = Colours(
            checks.number(brightness_multiplier, "brightness_multiplier", least=0.0),
            checks.number(contrast_multiplier, "contrast_multiplier", least=0.0),
            checks.number(saturation_multiplier, "saturation_multiplier", least=0.0),
            checks.number(hue_multiplier, "hue_multiplier", least=0.0),
            _probability(jitter_probability, "jitter_probability"),
            _probability(greyscale_probability, "greyscale_probability"),
            multiply=False,
        )
        p = _probability(blur_probability, "blur_probability")
        self._blur = keras.layers.RandomGaussianBlur(
            factor=(p, p),
            kernel_size=2 * (height // 10 // 2) + 1,
            sigma=(
                checks.number(blur_min_sigma, "blur_min_sigma", least=0.0),
                checks.number(blur_max_sigma, "blur_max_sigma", least=0.0),
            ),
            value_range=(0.0, 1.0),
            data_format="channels_last",
            dtype="float32",
        )

    def augment(
        self, x: Tensor, y: Any, num_augmentations_per_example: int, is_warmup: bool
    ) -> list[np.ndarray]:
        given = ops.convert_to_tensor(images(x))
        return [
            ops.convert_to_numpy(self._view(given)) for _ in range(num_augmentations_per_example)
        ]

    def _view(self, x: Tensor) -> Tensor:
        x = self._draws.square(x, self.size, 0.75)
        mirror = lambda part: self._mirror(part, training=True)  # noqa: E731
        x = self._draws.sometimes(mirror, self.flip_probability, x)
        x = self._blur(self._colours(x), training=True)
        x = self._draws.sometimes(self._solarised, self.solarize_probability, x)
        return ops.clip(x, 0.0, 1.0)

    def _solarised(self, x: Tensor) -> Tensor:
        return ops.where(x < self.solarize_thresh, x, self.solarize_pixel_max - x)


def _probability(value: Any, name: str) -> float:
    found = checks.number(value, name, least=0.0)
    if found > 1:
        raise ValueError(f"`{name}` must be at most 1. Received: {name}={value!r}.")
    return found
