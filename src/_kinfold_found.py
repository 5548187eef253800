"""What a search found, and how it is told; beside the package, so that it needs no Keras."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from _kinfold_text import printable, shown


class Neighbours(NamedTuple):
    """What a search found, arrays [queries, k], nearest first; None or infinity after the last.

    Attributes:
        ids: of the items, object.
        distances: of the items from the query, float32, in the distance's own units.
        labels: of the items, object.
        metadata: of the items, object.
    """

    ids: np.ndarray
    distances: np.ndarray
    labels: np.ndarray
    metadata: np.ndarray


def objects(values: Iterable[Any], count: int) -> np.ndarray:
    """A column of an index, object [count]; NumPy would make more dimensions of lists."""
    out = np.empty(count, object)
    out[:] = list(values)
    return out


@dataclass(frozen=True)
class Match:
    """The answer to a query.

    Attributes:
        label: of the nearest item; "unknown" where that is too far, None where it has no label.
        known: whether the nearest item is near enough.
        distance: of the nearest item.
        neighbours: the evidence: ids, distances, labels and metadata of the k nearest, [k].
        threshold: the distance that decided.
    """

    label: int | str | None
    known: bool
    distance: float
    neighbours: Neighbours
    threshold: float


def as_text(paths: Sequence[Path], matches: Sequence[Match]) -> str:
    """A block for each file: its class, and its neighbours with their distances."""
    lines = []
    for path, match in zip(paths, matches, strict=True):
        verdict = "no label" if match.label is None else match.label
        lines.append(f"{shown(path)}: {verdict}  (threshold {match.threshold:.4f})")
        found = match.neighbours
        names = [str(one) for one in found.ids if one is not None]
        width = max(map(len, names), default=0)
        for name, distance, label in zip(names, found.distances, found.labels, strict=False):
            near = "" if distance <= match.threshold else "  too far"
            of = "" if label is None else label
            lines.append(f"  {distance:.4f}  {name:<{width}}  {of}{near}".rstrip())
    return printable("\n".join(lines))


def as_json(paths: Sequence[Path], matches: Sequence[Match]) -> str:
    """A list with an object for each file."""
    rows: list[dict[str, Any]] = []
    for path, match in zip(paths, matches, strict=True):
        found = match.neighbours
        there = [one is not None for one in found.ids]
        rows.append(
            {
                "path": str(path),
                "label": match.label,
                "known": match.known,
                "distance": match.distance,
                "threshold": match.threshold,
                "neighbours": [
                    {"id": one, "distance": float(distance), "label": label, "metadata": metadata}
                    for one, distance, label, metadata, is_there in zip(*found, there, strict=True)
                    if is_there
                ],
            }
        )
    return json.dumps(rows, indent=2)
