"""Row numbers of class-balanced batches, in NumPy."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from kinfold.batches._checks import check_count, checked_share, checked_table
from kinfold.batches._dealing import deal
from kinfold.batches._gathering import SHARE, gather
from kinfold.core.labels import integer_labels
from kinfold.distributed import processes


class ClassBalancedIndices:
    """Row numbers of class-balanced batches; iterating yields one epoch of lists of ints.

    Each batch holds `classes_per_batch` distinct classes and `examples_per_class` examples of
    each, without repeats where the class has enough examples and with as few as possible
    otherwise. Over an epoch classes are dealt evenly, and so are the examples of a class: two
    counts differ by 1 at most. A class with one example can give no positive pair: it is left
    out, and one warning says how many there are.

    The epoch k depends only on the arguments and k, so that a resumed run sees the batches of an
    unbroken one. An object of this class is a `batch_sampler` for `torch.utils.data.DataLoader`;
    `epoch(k)` is the source for `tf.data` and Grain. It pickles, and gives row numbers whatever the
    ids. On JAX without x64 the ids that such a loader hands to a `keras.Model` are cut to 32 bits:
    use a `kinfold.EmbeddingModel`, which refuses ids that would merge, or map them with
    `np.unique(ids, return_inverse=True)[1]`.

    Where several processes train together, each deals the same batches and yields its own share of
    every batch: the shares, in the order of the ranks, are the batch of one process. These are the
    ranks of `torch.distributed` on PyTorch and the processes of `jax.distributed` on JAX. All of
    them must make this object, at the same point of the program and with the same arguments, after
    they have joined. A batch that does not divide gives the first ranks one row more.

    Args:
        labels: `[n]` or `[n, 1]` integers, the class of each example; in each process those of all
            examples.
        classes_per_batch: classes in a batch, over all ranks.
        examples_per_class: examples of each class in a batch, over all ranks.
        batches_per_epoch: batches in an epoch; by default about one pass over the examples,
            ceil(examples / batch size).
        seed: an integer for repeatable epochs; None draws one at random, kept in `.seed`. Several
            ranks take what rank 0 has drawn.
        share: `(rank, world size)` of the share to yield, which asks no other process. `(0, 1)` is
            the whole batch. None takes the rank and the world size of this process.

    Attributes:
        share: `(rank, world size)` of the share that is yielded, `(0, 1)` in one process.
        current_epoch: the epoch that the next iteration yields. Each iteration moves it on by 1
            as it starts; set it to resume.
        left_out: the labels of the classes with one example.

    Raises:
        TypeError: labels are not integers, or a count or the seed is not an integer.
        ValueError: labels have another shape, a count is below 1, fewer classes than
            `classes_per_batch` have two examples, a batch has fewer rows than there are ranks,
            `share` is not a rank and a world size, or the ranks were given different arguments.
        RuntimeError: where batches are read, if `seed` is None and the ranks joined after this
            object was made: each rank would deal batches of its own.

    Example:

    >>> from kinfold.batches import ClassBalancedIndices
    >>> labels = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    >>> indices = ClassBalancedIndices(labels, classes_per_batch=2, examples_per_class=2, seed=0)
    >>> len(indices), indices.epoch(0).shape
    (3, (3, 4))
    >>> [sorted(labels[row] for row in batch) for batch in indices]
    [[0, 0, 2, 2], [0, 0, 1, 1], [1, 1, 2, 2]]
    >>> indices.current_epoch
    1
    """

    def __init__(
        self,
        labels: Any,
        classes_per_batch: int,
        examples_per_class: int,
        batches_per_epoch: int | None = None,
        seed: int | None = None,
        share: tuple[int, int] | None = None,
    ) -> None:
        classes, class_of, counts = np.unique(
            integer_labels(labels, "labels"), return_inverse=True, return_counts=True
        )
        self.classes_per_batch = check_count("classes_per_batch", classes_per_batch)
        self.examples_per_class = check_count("examples_per_class", examples_per_class)
        usable = counts > 1
        self.left_out = classes[~usable]
        if usable.sum() < self.classes_per_batch:
            raise ValueError(
                f"classes_per_batch is {classes_per_batch}, but {usable.sum()} of the "
                f"{len(classes)} classes have two examples or more. Pass at most that many."
            )
        if len(self.left_out):
            warnings.warn(
                f"{len(self.left_out)} of {len(classes)} classes have one example and are left "
                "out, as they give no positive pair. Add examples to them, or remove them to "
                "silence this; `left_out` holds their labels.",
                stacklevel=2,
            )
        # From the number of a class among all to its number among the usable; -1 stays -1.
        self._usable_id = np.append(np.where(usable, np.cumsum(usable) - 1, -1), -1)
        # Rows sorted by class, those of class k from _starts[k] on, classes left out last.
        rank = np.where(usable, np.cumsum(usable) - 1, len(classes))
        order = np.argsort(rank[class_of], kind="stable")
        self._counts = counts[usable]
        self._starts = np.cumsum(self._counts) - self._counts
        self._rows = order[: self._counts.sum()]

        batch = self.classes_per_batch * self.examples_per_class
        if batches_per_epoch is None:
            batches_per_epoch = -(-len(self._rows) // batch)
        self.batches_per_epoch = check_count("batches_per_epoch", batches_per_epoch)
        self._given_share = None if share is None else checked_share(share)
        self._share = self._given_share or (0, 1)
        drawn = seed is None
        seed = int(np.random.default_rng().integers(2**63)) if seed is None else seed
        self.seed = check_count("seed", seed, lowest=0)
        if self._given_share is None:
            facts = {
                "the seed of the batches": None if drawn else self.seed,
                "the labels to deal batches from (a digest)": processes.digest(class_of),
                "classes_per_batch": self.classes_per_batch,
                "examples_per_class": self.examples_per_class,
                "batches_per_epoch": self.batches_per_epoch,
            }
            self.seed = processes.agree(facts, self.seed)
        # Whether all ranks have this seed: not if it was drawn before they joined.
        self._seed_is_shared = not drawn or processes.rank_and_size()[1] > 1
        self._confused: np.ndarray | None = None
        self._confused_share = SHARE
        self.current_epoch = 0
        _ = self.share  # raises where the batch is too small

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copies of one pickle have one seed, and the rank of the process that reads them.
        self.__dict__.update(state, _seed_is_shared=True)

    @property
    def share(self) -> tuple[int, int]:
        """`(rank, world size)` of the share of each batch that is yielded.

        It is found when batches are read, so that a pickled copy gives the share of the rank that
        loads it. A process without a group, such as a worker of a data loader, keeps the share
        that was found before: the worker reads for its rank.
        """
        if self._given_share is None:
            found = processes.rank_and_size()
            if found[1] > 1:
                self._share = found
            if self._share[1] > 1 and not self._seed_is_shared:
                raise RuntimeError(
                    "These batches were made with seed=None before the ranks joined, so each of "
                    f"the {self._share[1]} ranks would deal batches of its own. Pass a seed, or "
                    "make them after torch.distributed.init_process_group or "
                    "jax.distributed.initialize."
                )
        batch = self.classes_per_batch * self.examples_per_class
        if batch < self._share[1]:
            raise ValueError(
                "A batch must have a row or more for every rank. Received classes_per_batch "
                f"{self.classes_per_batch} and examples_per_class {self.examples_per_class}, "
                f"{batch} rows in all, for {self._share[1]} ranks."
            )
        return self._share

    def set_confused(self, confused: Any, share: float = SHARE) -> None:
        """Bring confused classes together in the batches of every epoch dealt from now on.

        A part of each batch stays as it was dealt at random. The other part is exchanged for
        classes that the first ones are confused with, each a random one of its row, as far as the
        epoch has such classes to give. Every promise above still holds: distinct classes in a
        batch, classes and examples dealt evenly, the shares of the ranks. An epoch holds each class
        as often as without a table, so one with room for few of the classes finds few to bring. A
        class stands beside those brought to it. The epoch k then depends on the arguments, k, the
        table and the share.

        Args:
            confused: integers `[classes, m]`, as `confused_classes` gives for all the labels: row
                i holds the classes that class i is confused with, padded with -1, in any order;
                classes are numbered in the order of `np.unique`. None undoes it. Ranks call
                this together, with the same table.
            share: the part of the classes of a batch, from 0 to 1, that may be exchanged.

        Raises:
            TypeError: the table does not hold integers.
            ValueError: it has another shape, holds a number that is no class, `share` is out of
                range, or the ranks were given different tables.

        Example:

        >>> import numpy as np
        >>> from kinfold.batches import ClassBalancedIndices
        >>> labels = np.repeat(np.arange(10), 2)
        >>> indices = ClassBalancedIndices(labels, 4, 2, batches_per_epoch=5, seed=0)
        >>> indices.set_confused([[1], [0], [3], [2], [5], [4], [7], [6], [9], [8]])
        >>> labels[indices.epoch(0)][:, ::2]
        array([[3, 2, 0, 6],
               [8, 9, 1, 7],
               [4, 5, 7, 6],
               [9, 3, 2, 0],
               [8, 5, 1, 4]])
        """
        table = None if confused is None else checked_table(confused, len(self._usable_id) - 1)
        if isinstance(share, bool) or not 0 <= share <= 1:
            raise ValueError(f"share must be from 0 to 1. Received {share!r}.")
        if self._given_share is None:
            said = None if table is None else [processes.digest(table), list(table.shape)]
            processes.agree({"the confused classes (a digest)": said, "their share": share}, 0)
        usable = self._usable_id[:-1] >= 0
        self._confused = None if table is None else self._usable_id[table[usable]]
        self._confused_share = share

    def epoch(self, k: int) -> np.ndarray:
        """The batches of epoch k, int64 `[batches_per_epoch, classes_per_batch *
        examples_per_class]`: row numbers, those of a class side by side. Of several ranks, each
        gets its own columns.
        """
        rank, size = self.share
        rng = np.random.default_rng([self.seed, check_count("epoch", k, lowest=0)])
        batches, classes, examples = (
            self.batches_per_epoch,
            self.classes_per_batch,
            self.examples_per_class,
        )
        # A batch is a hand of classes; each class then deals a hand of examples to each of its
        # batches, in the order of the batches.
        hands = deal(rng, np.array([len(self._counts)]), classes, np.array([batches]))
        if self._confused is not None:
            hands = gather(rng, hands, self._confused, self._confused_share)
        slots = hands.reshape(-1)
        appearances = np.bincount(slots, minlength=len(self._counts))
        dealt = deal(rng, self._counts, examples, appearances)
        by_class = np.argsort(slots, kind="stable")
        rows = np.empty_like(dealt)
        rows[by_class] = self._rows[self._starts[slots[by_class], None] + dealt]
        return rows.reshape(batches, classes * examples)[
            :, processes.share(classes * examples, rank, size)
        ]

    def __iter__(self) -> Iterator[list[int]]:
        # Moved on at the start: a loop that stops early does not see the same batches again.
        epoch = self.current_epoch
        self.current_epoch = epoch + 1
        for batch in self.epoch(epoch):
            yield batch.tolist()

    def __len__(self) -> int:
        return self.batches_per_epoch
