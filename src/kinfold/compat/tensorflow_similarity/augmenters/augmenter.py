"""`tensorflow_similarity.augmenters.Augmenter`."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.metrics.task import to_numpy


class Augmenter(abc.ABC):
    """Makes views of a batch; subclass it with an `augment` of your own."""

    @abc.abstractmethod
    def augment(
        self, x: Tensor, y: Tensor, num_augmentations_per_example: int, is_warmup: bool
    ) -> list[Any]:
        """Return what a sampler gives in place of a batch: views, or examples and labels.

        Args:
            x: examples [batch, ...].
            y: class ids [batch], or None.
            num_augmentations_per_example: how many views of each.
            is_warmup: whether a sampler is in its first epochs.
        """

    def __call__(
        self,
        x: Tensor,
        y: Tensor = None,
        num_augmentations_per_example: int = 2,
        is_warmup: bool = True,
    ) -> list[Any]:
        views = checks.count(num_augmentations_per_example, "num_augmentations_per_example")
        return self.augment(x, y, views, is_warmup)


def images(x: Any) -> np.ndarray:
    """Return images as float32 [batch, height, width, channels].

    Raises:
        ValueError: another rank.
    """
    found = to_numpy(x) if hasattr(x, "shape") else np.stack([to_numpy(one) for one in x])
    if found.ndim != 4:
        raise ValueError(
            "An augmenter takes images [batch, height, width, channels]. Received shape "
            f"{found.shape}."
        )
    return found.astype(np.float32)


def no_cpu_count(num_cpu: int | None) -> None:
    """Refuse a number of processors where a batch is changed as a whole."""
    if num_cpu is not None:
        raise ValueError(
            "The layers of Keras change a whole batch at once, so `num_cpu` has no use: leave it "
            f"out. Received: num_cpu={num_cpu!r}."
        )
