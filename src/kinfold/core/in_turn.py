"""Stored examples in turn, for `predict`."""

from __future__ import annotations

from typing import Any

import keras

from kinfold.core.stored import Stored


class InTurn(keras.utils.PyDataset):
    """All examples of a structure of arrays and stored examples, in order, batch by batch.

    The next batches are read while one is in use.
    """

    def __init__(self, x: Any, batch_size: int) -> None:
        super().__init__(workers=2, max_queue_size=2)
        self.x, self.size = x, batch_size
        self.count = len(keras.tree.flatten(x)[0])

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def __getitem__(self, index: int) -> tuple[Any]:
        rows = slice(index * self.size, (index + 1) * self.size)
        return (keras.tree.map_structure(lambda part: part[rows], self.x),)


def for_predict(x: Any, batch_size: int | None) -> Any:
    """What `predict` can take: `x` itself, or batches of it where it holds stored examples."""
    if any(isinstance(part, Stored) for part in keras.tree.flatten(x)):
        return InTurn(x, batch_size or 32)
    return x
