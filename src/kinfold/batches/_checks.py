"""Checks of what batches are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np


def checked_share(share: Any) -> tuple[int, int]:
    if not isinstance(share, list | tuple) or len(share) != 2:
        raise TypeError(f"share must be None or (rank, world size). Received {share!r}.")
    rank = check_count("the rank in share", share[0], lowest=0)
    size = check_count("the world size in share", share[1])
    if rank >= size:
        raise ValueError(
            f"The rank in share must be below the world size: ranks are 0 to {size - 1}. "
            f"Received share={share!r}."
        )
    return rank, size


def check_count(name: str, value: Any, lowest: int = 1) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer. Received {value!r}.")
    if value < lowest:
        raise ValueError(f"{name} must be {lowest} or more. Received {value!r}.")
    return int(value)


def checked_table(confused: Any, classes: int) -> np.ndarray:
    """A table of confused classes, int64 `[classes, m]`."""
    table = np.asarray(confused)
    if not np.issubdtype(table.dtype, np.integer):
        raise TypeError(f"The confused classes must be integers. Received dtype {table.dtype}.")
    if table.ndim != 2 or len(table) != classes:
        raise ValueError(
            f"The confused classes must have a row for each of the {classes} classes. Received "
            f"shape {table.shape}."
        )
    if table.size and not (table.min() >= -1 and table.max() < classes):
        raise ValueError(
            f"The confused classes must be from -1 to {classes - 1}. Received values from "
            f"{table.min()} to {table.max()}."
        )
    return table.astype(np.int64)
