"""Rows of embeddings as they are compared: checked, in float32, where it rounds little."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from kinfold.metrics.task import to_numpy

# Numbers that are copied at once.
ELEMENTS = 1 << 20


def half_squares(rows: np.ndarray) -> np.ndarray:
    """Half the squared norm of each row."""
    return 0.5 * np.einsum("id,id->i", rows, rows)


def checked(value: Any, name: str) -> np.ndarray:
    """Numbers [n, d] that are finite in float32."""
    value = to_numpy(value)
    # bfloat16 is of NumPy's kind "V".
    if value.dtype.kind not in "fiub" and value.dtype.name != "bfloat16":
        raise TypeError(f"`{name}` must hold numbers. Received dtype {value.dtype}.")
    if value.ndim != 2 or 0 in value.shape:
        raise ValueError(
            f"`{name}` must hold one embedding per row, shape [n, d] with neither of them 0. "
            f"Received shape {value.shape}."
        )
    with np.errstate(over="ignore"):
        finite = [np.isfinite(part.astype(np.float32)).all(axis=1) for part in _parts(value)]
    bad = len(value) - sum(map(np.count_nonzero, finite))
    if bad:
        raise ValueError(
            f"`{name}` must be finite in float32. Received NaN or infinity in {bad} of "
            f"{len(value)} rows."
        )
    return value


def _parts(value: np.ndarray) -> Iterator[np.ndarray]:
    """Runs of rows, so that copies of them are small."""
    rows = max(1, ELEMENTS // value.shape[1])
    return (value[start : start + rows] for start in range(0, len(value), rows))


def as_float32(value: np.ndarray, unit: bool, centre: np.ndarray | None) -> np.ndarray:
    """float32 [n, d]: rows of unit norm (or zero) where `unit`, less the centre if there is one."""
    single = np.empty(value.shape, np.float32)
    for part, out in zip(_parts(value), _parts(single), strict=True):
        rows = unit_rows(part) if unit else part
        out[...] = rows if centre is None else rows - centre
    return single


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """float64 [n, d], by the largest entry first, as the square of a tiny one may be 0."""
    rows = rows.astype(np.float64)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows /= np.where(largest > 0, largest, 1)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)


def centre_of(x: np.ndarray, r: np.ndarray, unit: bool) -> np.ndarray | None:
    """What may be taken off all rows, float64 [d], where they lie far from the origin.

    It is a multiple of a power of 2 near their spread: no float32 row is rounded without it.
    """
    sample = np.concatenate([rows[:: -(-len(rows) // 1024)].astype(np.float64) for rows in (x, r)])
    sample = unit_rows(sample) if unit else sample
    centre = sample.mean(axis=0)
    spread = np.sqrt(np.mean((sample - centre) ** 2))
    if np.mean(centre**2) <= 4 * spread**2:
        return None
    step = 2.0 ** np.floor(np.log2(spread)) if spread > 0 else 2.0**-149
    return np.rint(centre / step) * step
