"""`tensorflow_similarity.samplers.MultiShotFileSampler`: batches of images in files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kinfold.compat.tensorflow_similarity.samplers.memory import MultiShotMemorySampler


def load_image(
    path: str | os.PathLike[str], target_size: tuple[int, int] | None = None
) -> np.ndarray:
    """Read an image of any format that Pillow knows, float32 [height, width, 3] from 0 to 1.

    Args:
        path: of the file.
        target_size: height and width to resize it to, by Lanczos; None leaves it as it is.

    Raises:
        ImportError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("load_image() needs pillow: pip install kinfold[train]") from error
    with Image.open(path) as file:
        image = file.convert("RGB")
    if target_size is not None:
        height, width = target_size
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image, np.float32) / np.float32(255)


class MultiShotFileSampler(MultiShotMemorySampler):
    """Batches of files, which are read when they are drawn; see `MultiShotMemorySampler`.

    Args:
        x: n paths.
        y: class ids [n].
        load_example_fn: reads a file. `load_image` gives images as large as they are, so that all
            must have one size; pass `functools.partial(load_image, target_size=(224, 224))`.
        classes_per_batch, examples_per_class_per_batch, steps_per_epoch, class_list,
            total_examples_per_class, augmenter, warmup: as there.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        load_example_fn: Callable[[Any], Any] = load_image,
        classes_per_batch: int = 2,
        examples_per_class_per_batch: int = 2,
        steps_per_epoch: int = 1000,
        class_list: Sequence[int] | None = None,
        total_examples_per_class: int | None = None,
        augmenter: Any = None,
        warmup: int = -1,
    ) -> None:
        super().__init__(
            x,
            y,
            load_example_fn,
            classes_per_batch,
            examples_per_class_per_batch,
            steps_per_epoch,
            class_list,
            total_examples_per_class,
            augmenter,
            warmup,
        )
