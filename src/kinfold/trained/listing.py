"""What a search found, as text for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _kinfold_text import printable
from kinfold.datasets import shown
from kinfold.trained.matching import Match


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
