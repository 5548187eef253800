"""`tensorflow_similarity.augmenters.ContrastiveAugmenter`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from kinfold.compat.tensorflow_similarity.augmenters.augmenter import Augmenter
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.metrics.task import to_numpy


class ContrastiveAugmenter(Augmenter):
    """Views by a function of one example.

    Args:
        process: takes an example and returns a view of it, all views of one shape.
        num_cpu: threads that it runs in; None for one.

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.augmenters import ContrastiveAugmenter
    >>> augmenter = ContrastiveAugmenter(lambda image: image[::-1])
    >>> [view.tolist() for view in augmenter(np.array([[1, 2], [3, 4]]))]
    [[[2, 1], [4, 3]], [[2, 1], [4, 3]]]
    """

    def __init__(self, process: Callable[[Any], Any], num_cpu: int | None = None) -> None:
        self.process = process
        self.num_cpu = None if num_cpu is None else checks.count(num_cpu, "num_cpu")

    def augment(
        self, x: Tensor, y: Tensor, num_augmentations_per_example: int, is_warmup: bool
    ) -> list[np.ndarray]:
        return [self._view(x) for _ in range(num_augmentations_per_example)]

    def _view(self, x: Any) -> np.ndarray:
        if self.num_cpu is None:
            return np.stack([to_numpy(self.process(one)) for one in x])
        with ThreadPoolExecutor(self.num_cpu) as pool:
            return np.stack([to_numpy(one) for one in pool.map(self.process, x)])
