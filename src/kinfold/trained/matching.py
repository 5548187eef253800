"""Which class a query is of, or none that is known: the decision of a run with an index."""

from __future__ import annotations

from _kinfold_found import Match as Match
from kinfold.search.found import Neighbours
from kinfold.thresholds import Threshold


def decide(found: Neighbours, threshold: Threshold) -> list[Match]:
    """The answers to queries by what a search found for them."""
    matches = []
    for ids, distances, labels, metadata in zip(*found, strict=True):
        near = ids[0] is not None and bool(threshold.accepts(distances[:1])[0])
        matches.append(
            Match(
                labels[0] if near else "unknown",
                near,
                float(distances[0]),
                Neighbours(ids, distances, labels, metadata),
                threshold.distance,
            )
        )
    return matches
