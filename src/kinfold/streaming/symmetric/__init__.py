"""Losses over the pairs of a batch with itself, whose distances are the same from both sides."""

import keras

from kinfold.core import backends
from kinfold.core.checks import Tensor
from kinfold.streaming.family import Family

# Rows and columns of a symmetric tile: a megabyte of float32.
TILE = 512

# Batches up to this size are one tile, whose distances are kept for the backward pass.
DENSE = 512


def symmetric(
    family: Family, x: Tensor, y: Tensor, diagonal: bool = False, block_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Loss and validity of each anchor where the anchors are the references, tile by tile.

    For the log-sum-exp family over distances that depend on the dot product alone, two thirds of
    the matrix work of the general way: see `kinfold.streaming.symmetric.tiles`.

    Args:
        family: what the loss is made of, without extra statistic.
        x: embeddings [n, d], float32 or float64.
        y: integer labels [n].
        diagonal: whether an anchor is a positive of itself.
        block_size: rows and columns of a tile; None chooses.

    Returns:
        Losses [n], differentiable with respect to `x`, and validity, boolean [n].
    """
    n = keras.ops.shape(y)[0]
    if isinstance(n, int) and n <= (DENSE if block_size is None else block_size):
        return backends.module(__name__).whole(family, diagonal, x, y)
    return backends.module(__name__).symmetric(family, diagonal, block_size or TILE, x, y)
