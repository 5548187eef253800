"""The map of the embedding: thumbnails laid out by t-SNE, or points where there are no images."""

from __future__ import annotations

import numpy as np

from kinfold.training.report import charts, measures
from kinfold.training.report.context import ReportContext
from kinfold.training.report.markup import note, section
from kinfold.training.report.words import count, part_of, readable

_EXAMPLES = 1200


def embedding_map(context: ReportContext) -> str:
    """Some examples laid out by t-SNE: thumbnails, or points where there are no images."""
    note_ = note(
        "t-SNE of the cosine distances between embeddings. Neighbours on the map are alike to the "
        "model; directions, gaps and long distances mean little."
    )
    limited = measures.some_examples(context.y, _EXAMPLES, classes=None if context.pictures else 10)
    points = measures.plane(context.report.embeddings[limited])
    body, said = (_sheets if context.pictures else _points)(context, limited, points)
    return section(
        "map",
        "Map of the embedding",
        note_,
        f'<figure class="map">{body}<figcaption>{said}</figcaption></figure>',
    )


def _points(context: ReportContext, chosen: np.ndarray, points: np.ndarray) -> tuple[str, str]:
    y = context.y[chosen]
    names = {int(label): readable(context.name(int(label))) for label in dict.fromkeys(y.tolist())}
    said = _shown(context, len(chosen), len(names))
    return charts.scatter(points, y, names, f"Map of the embedding: {said}"), said


def _sheets(context: ReportContext, chosen: np.ndarray, points: np.ndarray) -> tuple[str, str]:
    """A map for a wide screen and a coarser one for a phone."""
    assert context.pictures is not None
    many = len(chosen) > 300
    sources, placed = [], []
    for grid in ((44, 36), (22, 30)) if many else ((22, 16), (11, 15)):
        cells = measures.on_grid(points, *grid)
        placed.append(int((cells[:, 0] >= 0).sum()))
        sources.append(context.pictures.map(chosen, cells, grid, 36 if many else 56))
    said = _shown(context, placed[0], len(np.unique(context.y[chosen])))
    if placed[1] < placed[0]:
        said += f" On a narrow screen {placed[1]:,} are shown."
    said += " Each is moved to a free place of a grid."
    ink = ' class="ink"' if context.pictures.drawings else ""
    return (
        f'<picture><source media="(max-width: 480px)" srcset="{sources[1]}">'
        f'<img{ink} src="{sources[0]}" alt="Map of the embedding: {said}"></picture>',
        said,
    )


def _shown(context: ReportContext, shown: int, classes: int) -> str:
    things = f"{part_of(shown, len(context.y))} {context.thing}s".capitalize()
    if classes < context.classes:
        return f"{things}, from {classes:,} of {count(context.classes, 'class')} drawn at random."
    return f"{things}, from {count(classes, 'class')}."
