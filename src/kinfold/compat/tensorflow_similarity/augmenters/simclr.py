"""`tensorflow_similarity.augmenters.SimCLRAugmenter`."""

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
from kinfold.compat.tensorflow_similarity.augmenters.changes import Colours, Draws, look
from kinfold.core import checks
from kinfold.core.checks import Tensor


class SimCLRAugmenter(Augmenter):
    """SimCLR's views: a random crop, a mirror, and other colours; for training and for evaluation.

    Args:
        height, width: of a view.
        is_training: False cuts out the centre, without chance.
        color_distort: whether colours change, of images with three channels.
        jitter_stength: by how much they change; spelled as there.
        crop: whether a random part of 8% to 100% of the image is cut out; without it images must
            have the size of a view.
        eval_crop_proportion: the share of each side of the centre that is cut out.
        flip: whether half of the views are mirrored.
        version: "v2" scales the brightness, "v1" shifts it.
        num_cpu: None.

    Raises:
        ValueError: an unknown version, a `num_cpu`, or images of another size or channels.

    Call arguments:
        x: images [batch, height, width, channels] from 0 to 255. The views are float32 from 0 to 1.

    Reference:
        Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners, 2020,
        https://arxiv.org/abs/2006.10029

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.augmenters import SimCLRAugmenter
    >>> first, second = SimCLRAugmenter(16, 16)(np.full((2, 24, 24, 3), 255, "uint8"))
    >>> first.shape, second.dtype
    ((2, 16, 16, 3), dtype('float32'))
    """

    def __init__(
        self,
        height: int,
        width: int,
        is_training: bool = True,
        color_distort: bool = True,
        jitter_stength: float = 1.0,
        crop: bool = True,
        eval_crop_proportion: float = 0.875,
        flip: bool = True,
        version: str = "v2",
        num_cpu: int | None = None,
    ) -> None:
        no_cpu_count(num_cpu)
        self.size = checks.count(height, "height"), checks.count(width, "width")
        self.is_training, self.crop, self.flip = is_training, crop, flip
        self.eval_crop_proportion = checks.number(
            eval_crop_proportion, "eval_crop_proportion", above=0.0
        )
        strength = checks.number(jitter_stength, "jitter_stength", least=0.0)
        multiply = checks.choice(version, "version", ("v1", "v2")) == "v2"
        self._colours = None
        if color_distort:
            most = 0.8 * strength
            self._colours = Colours(most, most, most, 0.2 * strength, 0.8, 0.2, multiply)
        self._draws = Draws()
        self._mirror = keras.layers.RandomFlip(
            "horizontal", data_format="channels_last", dtype="float32"
        )

    def augment(
        self, x: Tensor, y: Any, num_augmentations_per_example: int, is_warmup: bool
    ) -> list[np.ndarray]:
        given = ops.convert_to_tensor(images(x) / 255.0)
        if not self.crop and tuple(given.shape[1:3]) != self.size:
            raise ValueError(
                f"Without `crop` images must be of the size of a view, {self.size}. Received "
                f"shape {tuple(given.shape)}."
            )
        view = self._trained if self.is_training else self._centre
        return [
            ops.convert_to_numpy(ops.clip(view(given), 0.0, 1.0))
            for _ in range(num_augmentations_per_example)
        ]

    def _trained(self, x: Tensor) -> Tensor:
        x = self._draws.crop(x, self.size, (0.08, 1.0)) if self.crop else x
        x = self._mirror(x, training=True) if self.flip else x
        return x if self._colours is None else self._colours(x)

    def _centre(self, x: Tensor) -> Tensor:
        if not self.crop:
            return x
        n, height, width = x.shape[:3]
        # The largest window of the view's shape, and of it the proportion asked for.
        ratio = (self.size[1] / self.size[0]) * (height / width)
        sides = np.minimum([1.0 / ratio, ratio], 1.0) * self.eval_crop_proportion
        share = ops.convert_to_tensor(np.repeat(sides[:, None], n, 1).astype("float32"))
        return look(x, (1.0 - share) / 2.0, share, self.size)
