"""The sections that hold charts: training, recall at k, similarities, the map."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from kinfold.report import charts, measures
from kinfold.report.words import (
    count,
    figure,
    note,
    number,
    part_of,
    percent,
    readable,
    section,
    table,
)

if TYPE_CHECKING:
    from kinfold.report.page import Subject

Curves = dict[str, tuple[list[float], list[float]]]

_METRIC = re.compile(r"(recall|precision|map|ndcg)@\w+|r_precision|map|mrr")
_MAP_EXAMPLES = 1200


def training(subject: Subject) -> str:
    """Loss and metrics over the epochs, as far as there is a history."""
    columns = {name: _floats(values) for name, values in subject.report.history.items()}
    epochs = columns.pop("epoch", [])
    losses: Curves = {}
    metrics: Curves = {}
    lost = 0
    for name, values in columns.items():
        short = name.removeprefix("val_")
        if short != "loss" and not _METRIC.fullmatch(short):
            continue
        x = epochs if len(epochs) == len(values) else list(range(1, len(values) + 1))
        finite = [(e, v) for e, v in zip(x, values, strict=True) if math.isfinite(v)]
        lost += len(values) - len(finite)
        if not finite:
            continue
        curve = ([e for e, _ in finite], [v for _, v in finite])
        if short == "loss":
            losses["validation" if name.startswith("val_") else "training"] = curve
        else:
            metrics[short if short not in metrics else name] = curve
    figures = []
    if losses:
        figures.append(figure(charts.lines(losses, _alt("Loss", losses), "epoch"), title="Loss"))
    if metrics:
        # More curves than colours cannot be told apart.
        drawn = dict(list(metrics.items())[: len(charts.SERIES)])
        chart = charts.lines(drawn, _alt("Retrieval", drawn), "epoch", unit=True)
        figures.append(figure(chart, title="Retrieval on validation data"))
    said = f"{count(lost, 'value')} not finite and left out." if lost else ""
    return section(
        "training",
        "Training",
        note(f"<strong>{html.escape(subject.report.warning)}</strong>")
        if subject.report.warning
        else "",
        note(said) if said else "",
        f'<div class="pair">{"".join(figures)}</div>'
        if figures
        else '<p class="empty">There is no history of the training to draw.</p>',
    )


def recall(subject: Subject) -> str:
    """recall@k of the model and of the raw data, drawn and as numbers."""
    title = "Recall at k"
    trained = measures.recall_curve(subject.report.embeddings, subject.y)
    raw = measures.recall_curve(subject.report.baseline, subject.y)
    if not trained:
        said = "No class has two examples, so there is nothing to find."
        return section("recall", title, f'<p class="empty">{said}</p>')
    curves: Curves = {
        "trained": ([float(k) for k in trained], list(trained.values())),
        subject.raw: ([float(k) for k in raw], list(raw.values())),
    }
    alt = "Recall at k. " + " ".join(
        f"k = {k}: trained {number(trained[k])}, {subject.raw} {number(raw[k])}." for k in trained
    )
    rows = [
        (str(k), [f"<td>{number(trained[k])}</td>", f"<td>{number(raw[k])}</td>"]) for k in trained
    ]
    chart = charts.lines(curves, alt, "k, neighbours looked at", unit=True, log2=True)
    return section(
        "recall",
        title,
        note("The share of queries with one of their own class among the first k neighbours."),
        f'<div class="pair">{figure(chart)}',
        f"{table(['Trained', subject.raw.capitalize()], rows, corner='k')}</div>",
    )


def similarities(subject: Subject) -> str:
    """Histograms of the similarities of pairs, of the model and of the raw data."""
    title = "Similarities of pairs"
    spaces = {
        "Trained": measures.similarities(subject.report.embeddings, subject.y),
        subject.raw.capitalize(): measures.similarities(subject.report.baseline, subject.y),
    }
    parts = [v for s in spaces.values() for v in (s.positive, s.negative) if len(v)]
    if not parts:
        return section("similarities", title, '<p class="empty">There are no pairs.</p>')
    low, high = min(float(v.min()) for v in parts), max(float(v.max()) for v in parts)
    limits = (low, high) if high - low > 1e-3 else (low - 0.01, high + 0.01)
    figures = []
    for name, s in spaces.items():
        numbers = "; ".join(
            f"{kind}: mean {v.mean():.2f}, middle 90% from {np.quantile(v, 0.05):.2f} "
            f"to {np.quantile(v, 0.95):.2f}"
            for kind, v in (("same class", s.positive), ("different classes", s.negative))
            if len(v)
        )
        chart = charts.histogram(
            s.positive, s.negative, limits, f"{name}, cosine similarities of pairs. {numbers}."
        )
        drawn = (
            f"{part_of(len(s.positive), s.positive_pairs)} pairs of one class and "
            f"{part_of(len(s.negative), s.negative_pairs)} pairs of two."
        )
        if len(s.positive) and len(s.negative):
            drawn = (
                "A pair of one class is more similar than a pair of two classes in "
                f"{percent(s.separation(), 1)} of draws. From {drawn}"
            )
        figures.append(figure(chart, drawn[0].upper() + drawn[1:], title=name))
    said = (
        f"How similar two {subject.thing}s are, for pairs of one class and pairs of two; each "
        "histogram has the same area. The less the two overlap, the better one threshold tells "
        "same from different."
    )
    return section("similarities", title, note(said), f'<div class="pair">{"".join(figures)}</div>')


def embedding_map(subject: Subject) -> str:
    """Some examples laid out by t-SNE: thumbnails, or points where there are no images."""
    note_ = note(
        "t-SNE of the cosine distances between embeddings. Neighbours on the map are alike to the "
        "model; directions, gaps and long distances mean little."
    )
    limited = measures.some_examples(
        subject.y, _MAP_EXAMPLES, classes=None if subject.pictures else 10
    )
    points = measures.plane(subject.report.embeddings[limited])
    body, said = (_sheets if subject.pictures else _points)(subject, limited, points)
    return section(
        "map",
        "Map of the embedding",
        note_,
        f'<figure class="map">{body}<figcaption>{said}</figcaption></figure>',
    )


def _points(subject: Subject, chosen: np.ndarray, points: np.ndarray) -> tuple[str, str]:
    y = subject.y[chosen]
    names = {int(label): readable(subject.name(int(label))) for label in dict.fromkeys(y.tolist())}
    said = _shown(subject, len(chosen), len(names))
    return charts.scatter(points, y, names, f"Map of the embedding: {said}"), said


def _sheets(subject: Subject, chosen: np.ndarray, points: np.ndarray) -> tuple[str, str]:
    """A map for a wide screen and a coarser one for a phone."""
    assert subject.pictures is not None
    many = len(chosen) > 300
    sources, placed = [], []
    for grid in ((44, 36), (22, 30)) if many else ((22, 16), (11, 15)):
        cells = measures.on_grid(points, *grid)
        placed.append(int((cells[:, 0] >= 0).sum()))
        sources.append(subject.pictures.map(chosen, cells, grid, 36 if many else 56))
    said = _shown(subject, placed[0], len(np.unique(subject.y[chosen])))
    if placed[1] < placed[0]:
        said += f" On a narrow screen {placed[1]:,} are shown."
    said += " Each is moved to a free place of a grid."
    ink = ' class="ink"' if subject.pictures.drawings else ""
    return (
        f'<picture><source media="(max-width: 480px)" srcset="{sources[1]}">'
        f'<img{ink} src="{sources[0]}" alt="Map of the embedding: {said}"></picture>',
        said,
    )


def _shown(subject: Subject, shown: int, classes: int) -> str:
    things = f"{part_of(shown, len(subject.y))} {subject.thing}s".capitalize()
    if classes < subject.classes:
        return f"{things}, from {classes:,} of {count(subject.classes, 'class')} drawn at random."
    return f"{things}, from {count(classes, 'class')}."


def _floats(values: Iterable[object]) -> list[float]:
    out = []
    for value in values:
        try:
            out.append(float(value))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            out.append(math.nan)
    return out


def _alt(title: str, curves: Curves) -> str:
    said = []
    for name, (x, y) in curves.items():
        text = f"{name} {y[0]:.3g} at epoch {x[0]:g}"
        if len(y) > 1:
            text += f", {y[-1]:.3g} at epoch {x[-1]:g}, between {min(y):.3g} and {max(y):.3g}"
        said.append(text)
    return f"{title} by epoch: {'; '.join(said)}."
