"""A sampler that draws what a miner chooses often."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from kinfold.compat.pytorch_metric_learning import tuples
from kinfold.compat.pytorch_metric_learning.testers import BaseTester
from kinfold.compat.pytorch_metric_learning.utils.embedding import as_numpy
from kinfold.core import checks


class TuplesToWeightsSampler:
    """Positions drawn with replacement, as often as a miner chooses each.

    Every pass embeds the data set, or a part of it, anew. Draws follow
    `keras.utils.set_random_seed`. `kinfold train --hard-negatives` keeps batches of hard classes.

    Args:
        model: anything that can be called on a batch.
        miner: one of `miners`.
        dataset: has a length, and items (data, label) by position.
        subset_size: items that are embedded and drawn in a pass; None for all.
        tester_kwargs: arguments of `testers.BaseTester`, which embeds.
    """

    def __init__(
        self,
        model: Any,
        miner: Any,
        dataset: Any,
        subset_size: int | None = None,
        **tester_kwargs: Any,
    ) -> None:
        self.model, self.miner, self.dataset = model, miner, dataset
        self.subset_size = None if not subset_size else checks.count(subset_size, "subset_size")
        self.tester = BaseTester(**tester_kwargs)
        self.weights: Any = None

    def __len__(self) -> int:
        return self.subset_size or len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(random.getrandbits(63))
        every = len(self.dataset)
        rows = np.arange(every)
        if self.subset_size:
            rows = rng.choice(every, self.subset_size, replace=every < self.subset_size)
        some = _Some(self.dataset, rows)
        embeddings, labels = self.tester.get_all_embeddings(some, self.model)
        chosen = self.miner(embeddings, as_numpy(labels)[:, 0])
        found = tuples.weights_of(tuples.checked(chosen, len(rows), len(rows)), len(rows), False)
        self.weights = np.zeros(every)
        self.weights[rows] = found
        drawn = rng.choice(every, len(self), p=self.weights / self.weights.sum())
        return iter(drawn.tolist())


class _Some:
    """Some items of a data set."""

    def __init__(self, dataset: Any, rows: np.ndarray) -> None:
        self.dataset, self.rows = dataset, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        return self.dataset[int(self.rows[i])]
