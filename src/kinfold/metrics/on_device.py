"""The best items of each row, found on a device other than the CPU, which keeps all else."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold.core.checks import Tensor
from kinfold.metrics.shortlists import TooManyTiesError
from kinfold.metrics.task import to_numpy

# Rows and items of a block of scores, 512 MiB on a GPU.
ROWS, ITEMS = 2048, 65536


def best(
    x: np.ndarray,
    r: np.ndarray,
    k: int,
    keep: np.ndarray,
    halves: np.ndarray | None,
    own: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and items [n, w] of the best, as `Shortlists` would keep them; -inf where none is.

    Args:
        x: float32 [n, d].
        r: float32 [m, d].
        k: number of items wanted for each row.
        keep: float32 [n]; a score of at least this is kept, however many are better.
        halves: float32 [m], taken from the scores; None takes nothing.
        own: whether the rows are the items, none of which is its own.

    Raises:
        TooManyTiesError: more are as good as the last that is wanted than there is room for.
    """
    room = min(max(4 * k, 32), len(r))
    starts = range(0, len(x), ROWS)
    with _exactly():
        rows = [ops.convert_to_tensor(x[start : start + ROWS]) for start in starts]
        found: list[Any] = [None] * len(rows)
        for item in range(0, len(r), ITEMS):
            items = ops.convert_to_tensor(r[item : item + ITEMS])
            less = None if halves is None else ops.convert_to_tensor(halves[item : item + ITEMS])
            for i, start in enumerate(starts):
                first = start - item if own else None
                found[i] = _merged(found[i], _scores(rows[i], items, less, first), item, room)
        scores, items = (
            np.concatenate([to_numpy(pair[part]) for pair in found]) for part in (0, 1)
        )
    last = np.minimum(scores[:, k - 1], keep)
    wanted = (scores >= last[:, None]) & (scores > -np.inf)
    if room < len(r) and wanted[:, -1].any():
        raise TooManyTiesError
    width = int(np.count_nonzero(wanted, axis=1).max(initial=1))
    return np.where(wanted, scores, -np.inf)[:, :width], items[:, :width].astype(np.int64)


def _scores(x: Tensor, r: Tensor, less: Tensor | None, first: int | None) -> Tensor:
    """Scores [t, m]; -inf in the column of a row's own, the row's place from `first` on."""
    scores = ops.matmul(x, ops.transpose(r))
    if less is not None:
        scores = scores - less
    if first is None or first + x.shape[0] <= 0 or first >= r.shape[0]:
        return scores
    at = ops.expand_dims(ops.arange(first, first + x.shape[0]), 1)
    return ops.where(at == ops.arange(r.shape[0]), -np.inf, scores)


def _merged(before: Any, scores: Tensor, item: int, room: int) -> tuple[Tensor, Tensor]:
    """The best of those before and of a block, whose items begin at `item`."""
    values, items = ops.top_k(scores, min(room, scores.shape[1]))
    items = items + item
    if before is None:
        return values, items
    values = ops.concatenate([before[0], values], axis=1)
    items = ops.concatenate([before[1], ops.cast(items, before[1].dtype)], axis=1)
    values, order = ops.top_k(values, min(room, values.shape[1]))
    return values, ops.take_along_axis(items, order, axis=1)


@contextlib.contextmanager
def _exactly() -> Iterator[None]:
    """Products of float32 as such: an embedding's nearest are told apart by the last digits."""
    if keras.backend.backend() == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    elif keras.backend.backend() == "torch":
        import torch

        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.no_grad():
                yield
        finally:
            torch.set_float32_matmul_precision(before)
    else:
        yield
