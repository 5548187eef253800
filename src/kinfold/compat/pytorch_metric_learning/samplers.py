"""`pytorch_metric_learning.samplers`, under its names: the order that examples are read in.

Each is an iterable of positions, or of batches of them, as PyTorch's `DataLoader` takes one. Every
pass draws anew; draws follow `keras.utils.set_random_seed`. `kinfold.ClassBalancedBatches` does the
same for `fit`, and for several ranks.
"""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from kinfold.compat.pytorch_metric_learning import tuples
from kinfold.compat.pytorch_metric_learning.errors import WrongArgumentError
from kinfold.compat.pytorch_metric_learning.tuples_sampler import (
    TuplesToWeightsSampler as TuplesToWeightsSampler,
)
from kinfold.core import checks


class MPerClassSampler:
    """`m` examples of each class in turn, the classes in random order.

    Args:
        labels: class ids [n].
        m: examples of a class that come together.
        batch_size: of the loader, so that a batch holds whole classes; None for any.
        length_before_new_iter: positions of one pass, about.
    """

    def __init__(
        self,
        labels: Any,
        m: int,
        batch_size: int | None = None,
        length_before_new_iter: int = 100_000,
    ) -> None:
        self.m_per_class = checks.count(m, "m")
        self.rows = list(_rows_of_classes(labels).values())
        whole = self.m_per_class * len(self.rows)
        self.batch_size = None if batch_size is None else checks.count(batch_size, "batch_size")
        self.length = checks.count(length_before_new_iter, "length_before_new_iter")
        if self.batch_size is None:
            self.length -= self.length % whole if whole < self.length else 0
        else:
            if self.batch_size % self.m_per_class:
                raise WrongArgumentError(
                    f"`batch_size` must be a multiple of m. Received: {batch_size}, {m}."
                )
            if self.batch_size > min(self.length, whole):
                raise WrongArgumentError(
                    f"`batch_size` must be at most m times the number of classes, {whole}, and at "
                    f"most length_before_new_iter, {self.length}. Received: {batch_size}."
                )
            self.length -= self.length % self.batch_size

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        rng = _drawn()
        of_round = len(self.rows)
        if self.batch_size is not None:
            of_round = self.batch_size // self.m_per_class
        found: list[int] = []
        while len(found) < self.length:
            for i in rng.permutation(len(self.rows))[:of_round]:
                found += _some(rng, self.rows[i], self.m_per_class)
        return iter(found[: self.length])


class HierarchicalSampler:
    """Batches of two levels: classes of a few super-classes; give it as `batch_sampler`.

    Args:
        labels: integers [n, levels].
        batch_size: of each batch, at most.
        samples_per_class: examples of a class in a batch, or "all".
        batches_per_super_tuple: batches of each choice of super-classes.
        super_classes_per_batch: super-classes of a batch, which share it evenly.
        inner_label: column of the classes.
        outer_label: column of the super-classes.
    """

    def __init__(
        self,
        labels: Any,
        batch_size: int,
        samples_per_class: Any,
        batches_per_super_tuple: int = 4,
        super_classes_per_batch: int = 2,
        inner_label: int = 0,
        outer_label: int = 1,
    ) -> None:
        levels = tuples.known(labels, "labels")
        each = checks.count(batch_size, "batch_size") // super_classes_per_batch
        if batch_size % super_classes_per_batch:
            raise WrongArgumentError(
                "`batch_size` must be a multiple of super_classes_per_batch. Received: "
                f"{batch_size}, {super_classes_per_batch}."
            )
        if samples_per_class != "all" and each % checks.count(
            samples_per_class, "samples_per_class"
        ):
            raise WrongArgumentError(
                f"The share of a super-class, {each}, must be a multiple of samples_per_class. "
                f"Received: {samples_per_class}."
            )
        self.each, self.samples_per_class = each, samples_per_class
        self.batches_per_super_tuple = batches_per_super_tuple
        inner, outer = levels[:, inner_label], levels[:, outer_label]
        self.rows = [
            [
                np.flatnonzero((outer == above) & (inner == one))
                for one in np.unique(inner[outer == above])
            ]
            for above in np.unique(outer)
        ]
        chosen = itertools.combinations(range(len(self.rows)), super_classes_per_batch)
        self.groups = [*chosen] * batches_per_super_tuple

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[list[int]]:
        rng = _drawn()
        for i in rng.permutation(len(self.groups)):
            batch = [row for above in self.groups[i] for row in self._share(rng, self.rows[above])]
            yield [int(row) for row in rng.permutation(batch)]

    def _share(self, rng: np.random.Generator, classes: list[np.ndarray]) -> list[int]:
        share: list[int] = []
        for i in rng.permutation(len(classes)):
            rows = classes[i]
            number = len(rows) if self.samples_per_class == "all" else self.samples_per_class
            if len(share) + number <= self.each:
                share += _some(rng, rows, number)
        return share


class FixedSetOfTriplets:
    """Triplets drawn once: anchor, positive and negative follow one another.

    Args:
        labels: class ids [n].
        num_triplets: how many.
    """

    def __init__(self, labels: Any, num_triplets: int) -> None:
        rng, rows = _drawn(), list(_rows_of_classes(labels).values())
        if len(rows) < 2:
            raise WrongArgumentError(f"Triplets take two classes. Received {len(rows)}.")
        drawn = []
        for _ in range(checks.count(num_triplets, "num_triplets")):
            own, other = rng.choice(len(rows), 2, replace=False)
            drawn.append([*_some(rng, rows[own], 2), int(rng.choice(rows[other]))])
        self.fixed_set_of_triplets = np.array(drawn)

    def __len__(self) -> int:
        return self.fixed_set_of_triplets.size

    def __iter__(self) -> Iterator[int]:
        return iter(_drawn().permutation(self.fixed_set_of_triplets).ravel().tolist())


def _rows_of_classes(labels: Any) -> dict[Any, np.ndarray]:
    y = tuples.known(labels, "labels").reshape(-1)
    classes, inverse = np.unique(y, return_inverse=True)
    ends = np.cumsum(np.bincount(inverse))[:-1]
    return dict(zip(classes, np.split(np.argsort(inverse, kind="stable"), ends), strict=True))


def _some(rng: np.random.Generator, rows: np.ndarray, number: int) -> list[int]:
    """So many of `rows`, none twice unless there are fewer."""
    return [int(row) for row in rng.choice(rows, number, replace=len(rows) < number)]


def _drawn() -> np.random.Generator:
    return np.random.default_rng(random.getrandbits(63))
