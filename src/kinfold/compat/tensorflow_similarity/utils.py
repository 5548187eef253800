"""`tensorflow_similarity.utils`: lookups as arrays."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from kinfold.compat.tensorflow_similarity.types import Lookup

# The label of what was not found, and of what has no label. No class id is equal to it.
NO_LABEL = int(np.iinfo(np.int64).min)


def unpack_lookup_labels(lookups: Sequence[Sequence[Lookup]]) -> np.ndarray:
    """Return the labels of lookups, int64 [queries, k].

    A neighbour without a label has the least integer, and so has the place of one that is missing.
    """
    return _filled(
        [[NO_LABEL if one.label is None else one.label for one in row] for row in lookups],
        NO_LABEL,
        np.int64,
    )


def unpack_lookup_distances(
    lookups: Sequence[Sequence[Lookup]], distance_rounding: int | None = None
) -> np.ndarray:
    """Return the distances of lookups, float32 [queries, k], rounded to so many digits.

    The place of a neighbour that is missing has an infinite distance.
    """
    values = _filled([[one.distance for one in row] for row in lookups], np.inf, np.float32)
    if distance_rounding is None:
        return values
    scale = np.float32(10.0**distance_rounding)
    with np.errstate(over="ignore"):  # beyond the digits of float32 there is nothing to round
        rounded = np.round(values * scale) / scale
    return np.where(np.isfinite(rounded), rounded, values)


def _filled(rows: list[list[Any]], missing: Any, dtype: Any) -> np.ndarray:
    width = max(map(len, rows), default=0)
    short = sum(len(row) < width for row in rows)
    if short:
        warnings.warn(
            f"{short} of {len(rows)} queries have fewer than {width} neighbours. The missing ones "
            "count as neighbours of no class, infinitely far.",
            stacklevel=3,
        )
    return np.array([row + [missing] * (width - len(row)) for row in rows], dtype).reshape(
        len(rows), width
    )


def table(rows: Sequence[Sequence[Any]], headers: Sequence[str] = ()) -> str:
    """Return rows of text in columns."""
    shown = [list(map(_shown, row)) for row in ([headers] if headers else []) + list(rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    )


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
