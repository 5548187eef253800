"""What finds the nearest vectors: a module for each engine, all with the same verbs.

An index measures the candidates of an engine itself, from its own vectors: which distances it
returns does not depend on the engine.
"""

from typing import Protocol

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
