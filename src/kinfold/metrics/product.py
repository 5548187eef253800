"""Products of rows of embeddings: by NumPy on the CPU, by the backend on other devices."""

from typing import Any

import numpy as np
from keras import ops

from kinfold.metrics.task import to_numpy


def given(rows: np.ndarray) -> Any:
    """Rows float32 [n, d] where their products are computed."""
    return ops.convert_to_tensor(rows) if on_device() else rows


def of(x: Any, r: Any) -> np.ndarray:
    """The products [n, m] of all of the rows that `given` gave; may be written to."""
    if isinstance(x, np.ndarray):
        return x @ r.T
    return np.array(to_numpy(ops.matmul(x, ops.transpose(r))))


class InTurn:
    """Products that are written into two arrays in turn, whose memory is not asked for anew.

    A product may be used until the one after the next is computed.
    """

    def __init__(self) -> None:
        self._memory = [np.empty(0, np.float32), np.empty(0, np.float32)]

    def of(self, x: Any, r: Any) -> np.ndarray:
        """As the function `of`."""
        if not isinstance(x, np.ndarray):
            return of(x, r)
        self._memory.reverse()
        if self._memory[0].size < len(x) * len(r):
            self._memory[0] = np.empty(len(x) * len(r), np.float32)
        out = self._memory[0][: len(x) * len(r)].reshape(len(x), len(r))
        return np.matmul(x, r.T, out=out)


def on_device() -> bool:
    """Whether the backend computes elsewhere than on the processor."""
    tensor = ops.convert_to_tensor(np.zeros(1, np.float32))
    return "cpu" not in str(tensor.device).lower()
