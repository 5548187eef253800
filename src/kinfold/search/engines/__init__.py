"""What finds the nearest vectors: a module for each engine, all with the same verbs.

An index measures the candidates of an engine itself, from its own vectors: which distances it
returns does not depend on the engine.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np


class Engine(Protocol):
    """Vectors known by numbers that are never used again."""

    def add(self, vectors: np.ndarray, numbers: np.ndarray) -> None:
        """Take float32 vectors [n, d]; their int64 numbers [n] increase from call to call."""
        ...

    def remove(self, numbers: np.ndarray) -> None:
        """Forget the vectors of these numbers."""
        ...

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
        """Find candidates.

        Args:
            queries: float32 [q, d].
            k: how many are wanted for each.
            allowed: increasing int64 numbers, the only ones to be found; None for all.

        Returns:
            int64 [q, at least k], numbers, -1 where there are no more.
        """
        ...


@runtime_checkable
class Kept(Protocol):
    """What an engine with an index of its own can do besides, so that it is built once."""

    def keep(self, folder: Path, name: str) -> None:
        """Keep what was built of the vectors that are saved in a folder under a name."""
        ...

    def restore(self, folder: Path, name: str, count: int) -> bool:
        """Take what was kept under this name; False where it is not there, or not of so many."""
        ...
