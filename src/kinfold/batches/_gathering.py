"""Bringing confused classes together in the batches of an epoch, by exchanges that keep it even."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

SHARE = 0.5
"""The part of a batch's classes that is exchanged, if nothing else is asked for."""


def gather(
    rng: np.random.Generator, hands: np.ndarray, confused: np.ndarray, share: float
) -> np.ndarray:
    """Exchange classes between batches, so that confused ones share a batch.

    The first classes of a batch are its seeds and stay. In turn, each seed brings one of the
    classes that it is confused with into one of the other slots. A class comes from a slot of
    another batch by a swap. So the classes of a batch stay distinct, and each class appears as
    often as it was dealt.

    A seed chooses at random. If it brought its most confused class whenever it could, the same few
    would meet in every batch.

    Args:
        rng: decides which batch chooses first, and what a seed brings.
        hands: int `[batches, classes_per_batch]`, dealt evenly, the classes of a batch distinct.
        confused: int `[classes, m]`, padded with -1.
        share: the part of the slots of a batch that are not seeds.

    Returns:
        int64 `[batches, classes_per_batch]`, each seed followed by the classes that it brought.
    """
    batches, width = hands.shape
    if width == len(confused):  # each batch holds every class
        return hands
    epoch = _Epoch(hands, len(confused), width - round(share * width))
    rows = confused[hands[:, : epoch.seeds]]  # of each batch and seed
    shuffled = np.argsort(np.where(rows < 0, 2, rng.random(rows.shape)), axis=-1)
    partners = np.take_along_axis(rows, shuffled, axis=-1).tolist()
    for batch in rng.permutation(batches).tolist():
        epoch.fill(batch, partners[batch])
    order = np.argsort(epoch.brought_by.reshape(hands.shape), axis=1, kind="stable")
    return np.take_along_axis(np.reshape(epoch.slots, hands.shape), order, axis=1)


class _Epoch:
    """The slots of an epoch, batch by batch, and which of them may still change.

    Python lists and sets: each step looks at one slot, which NumPy would be slower at.
    """

    def __init__(self, hands: np.ndarray, classes: int, seeds: int) -> None:
        self.seeds = seeds
        self.width = hands.shape[1]
        self.slots: list[int] = hands.reshape(-1).tolist()
        self.held = [set(hand) for hand in hands.tolist()]
        # By class, the slots of it that may be exchanged.
        self.open: list[list[int]] = [[] for _ in range(classes)]
        for slot, one in enumerate(self.slots):
            if slot % self.width >= seeds:
                self.open[one].append(slot)
        # By slot, the seed that stands there or has brought the class.
        self.brought_by = np.minimum(np.arange(hands.size) % self.width, seeds)

    def fill(self, batch: int, partners: list[list[int]]) -> None:
        """Let each seed of a batch bring one class, then one more, while there are any."""
        start = batch * self.width
        free = list(range(start + self.width - 1, start + self.seeds - 1, -1))
        turns = [(seed, iter(row)) for seed, row in enumerate(partners)]
        while turns and free:
            left = []
            for seed, row in turns:
                if free and self._bring_next(batch, free, seed, row):
                    left.append((seed, row))
            turns = left

    def _bring_next(self, batch: int, free: list[int], seed: int, row: Iterator[int]) -> bool:
        """Bring the first class of `row` that can be had; False where none is left."""
        for one in row:
            if one < 0:
                return False
            if one in self.held[batch]:
                return True  # it is there already
            for i in range(len(free) - 1, -1, -1):
                if self._exchange(batch, free[i], one):
                    self.brought_by[free.pop(i)] = seed
                    return True
        return False

    def _exchange(self, batch: int, slot: int, wanted: int) -> bool:
        """Put a class into a slot, if the epoch stays even and its batches distinct."""
        leaving, offers = self.slots[slot], self.open[wanted]
        for i in range(len(offers) - 1, -1, -1):
            other = offers[i]
            there = self.held[other // self.width]
            if leaving not in there:
                del offers[i]
                self._leave(batch, slot)
                there.remove(wanted)
                self._enter(other // self.width, other, leaving)
                self.open[leaving].append(other)
                self._enter(batch, slot, wanted)
                return True
        return False

    def _leave(self, batch: int, slot: int) -> None:
        self.held[batch].remove(self.slots[slot])
        self.open[self.slots[slot]].remove(slot)

    def _enter(self, batch: int, slot: int, one: int) -> None:
        self.slots[slot] = one
        self.held[batch].add(one)
