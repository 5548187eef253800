"""The raw input of examples, which a model is compared with."""

import numpy as np

from kinfold.core.stored import Stored, blocks
from kinfold.encoders.networks import LARGE

_VALUES = 1 << 22  # of examples read at once


def pixels(x: np.ndarray | Stored) -> np.ndarray:
    """Embed examples without a model: their own values in a row, scaled to unit norm.

    Images larger than 32 pixels a side are first averaged over squares, which keeps the rows to
    some thousands of values and makes them no worse: glyphs of 64 pixels are found better so.

    Args:
        x: images [n, height, width, channels] or vectors [n, d].

    Returns:
        float32 [n, p], of unit norm; a row of zeros stays so.

    Example:

    >>> import numpy as np
    >>> from kinfold.training.raw_input import pixels
    >>> pixels(np.array([[[[3], [0]], [[0], [4]]]], "uint8"))
    array([[0.6, 0. , 0. , 0.8]], dtype=float32)
    """
    cell = _cell(x.shape[1:])
    width = int(np.prod(raw_shape(x.shape[1:])))
    out = np.empty((len(x), width), np.float32)
    done = 0
    for block in blocks(x, max(1, _VALUES // int(np.prod(x.shape[1:])))):
        if cell > 1:
            block = _averaged(block, cell)
        rows = out[done : done + len(block)]
        rows[:] = block.reshape(len(block), -1)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        np.divide(rows, norms, out=rows, where=norms > 0)
        done += len(block)
    return out


def unit_rows(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings at unit norm, for those of a model of one's own; others stay as they are."""
    norms = np.linalg.norm(embeddings, axis=1)
    return embeddings if np.allclose(norms, 1, atol=1e-3) else pixels(embeddings)


def raw_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what `pixels` makes of an example, before it stands in a row."""
    cell = _cell(shape)
    if cell == 1:
        return shape
    return max(1, shape[0] // cell), max(1, shape[1] // cell), shape[2]


def _cell(shape: tuple[int, ...]) -> int:
    """The side of the squares that `pixels` averages an example over."""
    return -(-max(shape[:2]) // LARGE) if len(shape) == 3 else 1


def _averaged(x: np.ndarray, cell: int) -> np.ndarray:
    n, height, width, channels = x.shape
    rows, columns = max(1, height // cell), max(1, width // cell)
    small = np.zeros((n, rows, columns, channels), np.float32)
    for i in range(min(cell, height)):  # not one mean over cells: that needs x as floats at once
        for j in range(min(cell, width)):
            small += x[:, i : i + rows * cell : cell, j : j + columns * cell : cell]
    return small
