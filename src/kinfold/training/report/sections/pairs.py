"""Same or different: what one threshold on the similarity of two examples can tell."""

from __future__ import annotations

import numpy as np

from kinfold.training.report import charts, measures
from kinfold.training.report.context import ReportContext
from kinfold.training.report.markup import empty, figure, note, section, table
from kinfold.training.report.words import count, number, part_of, percent

RATES = (0.01, 0.001)
_ROUGH = 10  # false accepts, fewer of which make a rate rough


def pairs(context: ReportContext) -> str:
    """The section: pairs found at two rates of false accepts, then histograms."""
    title = "Same or different"
    spaces = {
        "Trained": measures.similarities(context.report.embeddings, context.y),
        context.raw.capitalize(): measures.similarities(context.report.baseline, context.y),
    }
    values = [v for s in spaces.values() for v in (s.positive, s.negative) if len(v)]
    if not values:
        return section("pairs", title, empty("There are no pairs."))
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    limits = (low, high) if high - low > 1e-3 else (low - 0.01, high + 0.01)
    figures = [
        figure(charts.histogram(s.positive, s.negative, limits, _alt(name, s)), _drawn(s), name)
        for name, s in spaces.items()
    ]
    said = (
        f"How similar two {context.thing}s are, for pairs of one class and pairs of two; each "
        "histogram has the same area. The less the two overlap, the better one threshold tells "
        "same from different."
    )
    return section(
        "pairs",
        title,
        _accepts(context, spaces),
        note(context.report.threshold) if context.report.threshold else "",
        note(said),
        f'<div class="pair">{"".join(figures)}</div>',
    )


def _accepts(context: ReportContext, spaces: dict[str, measures.Similarities]) -> str:
    first = next(iter(spaces.values()))
    if not len(first.positive):
        return note("No class has two examples, so there are no pairs of one class.")
    if not len(first.negative):
        return note("There is only one class, so there are no pairs of different classes.")
    said = (
        f"Two {context.thing}s count as the same where their cosine similarity is at least a "
        "threshold. A false accept is a pair of two classes that counts as the same. The table "
        "says which share of the pairs of one class is found where false accepts are kept to 1% "
        "(1 pair in 100) or to 0.1% (1 pair in 1,000), and at which threshold. The thresholds were "
        "chosen on these classes; on new ones the rates will differ."
    )
    fewest = min(len(s.negative) for s in spaces.values())
    rows, limits = [], []
    for rate in RATES:
        cells = []
        for s in spaces.values():
            found = s.accepts(rate)
            if found is None:
                cells += ["<td>-</td>", "<td>-</td>"]
                continue
            threshold = "none" if found.threshold is None else number(found.threshold)
            cells += [f"<td>{percent(found.found, 1)}</td>", f"<td>{threshold}</td>"]
        rows.append((f"{100 * rate:g}%", cells))
        if rate * fewest < 1:
            limits.append(
                f"{100 * rate:g}% cannot be measured: that takes at least {round(1 / rate):,} "
                f"pairs of different classes, and {fewest:,} were compared."
            )
        elif rate * fewest < _ROUGH:
            limits.append(
                f"{100 * rate:g}% is rough: of {fewest:,} pairs of different classes it allows "
                f"{count(int(rate * fewest), 'false accept')}."
            )
    columns = [f"{name}: {what}" for name in spaces for what in ("found", "threshold")]
    return (
        note(said)
        + table("Pairs found by false accepts", columns, rows, corner="False accepts")
        + (note(" ".join(limits)) if limits else "")
    )


def _alt(name: str, s: measures.Similarities) -> str:
    numbers = "; ".join(
        f"{kind}: mean {v.mean():.2f}, middle 90% from {np.quantile(v, 0.05):.2f} "
        f"to {np.quantile(v, 0.95):.2f}"
        for kind, v in (("same class", s.positive), ("different classes", s.negative))
        if len(v)
    )
    return f"{name}, cosine similarities of pairs. {numbers}."


def _drawn(s: measures.Similarities) -> str:
    said = (
        f"{part_of(len(s.positive), s.positive_pairs)} pairs of one class and "
        f"{part_of(len(s.negative), s.negative_pairs)} pairs of two."
    )
    if len(s.positive) and len(s.negative):
        said = (
            "A pair of one class is more similar than a pair of two classes in "
            f"{percent(s.separation(), 1)} of draws (the area under the ROC curve). From {said}"
        )
    return said[0].upper() + said[1:]
