"""`tensorflow_similarity.types`: what a search and a calibration give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(eq=False)
class Lookup:
    """One neighbour of a query.

    Attributes:
        rank: 1 for the nearest.
        distance: from the query.
        label: class id of the neighbour, or None.
        embedding: of the neighbour, [d], or None.
        data: what was stored with the neighbour, or None.
    """

    rank: int
    distance: float
    label: int | None = None
    embedding: np.ndarray | None = None
    data: Any = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lookup):
            return False
        plain = (self.rank, self.distance, self.label) == (other.rank, other.distance, other.label)
        return (
            plain and _same(self.embedding, other.embedding) and bool(_same(self.data, other.data))
        )

    __hash__ = None  # type: ignore[assignment]


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(np.asarray(a), np.asarray(b))


@dataclass
class CalibrationResults:
    """What a calibration found.

    Attributes:
        cutpoints: for each name, such as "optimal", the distance and the metrics at it.
        thresholds: for each metric, its value at every distance; the distances as "distance".
    """

    cutpoints: Mapping[str, Mapping[str, str | float]]
    thresholds: Mapping[str, np.ndarray]
