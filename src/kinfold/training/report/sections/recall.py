"""recall@k of the model and of the raw input, drawn and as numbers."""

from __future__ import annotations

from kinfold.training.report import charts, measures
from kinfold.training.report.context import ReportContext
from kinfold.training.report.markup import empty, figure, note, section, table
from kinfold.training.report.words import number


def recall(context: ReportContext) -> str:
    """The section: a chart and a table."""
    title = "Recall at k"
    trained = measures.recall_curve(context.report.embeddings, context.y)
    raw = measures.recall_curve(context.report.baseline, context.y)
    if not trained:
        said = "No class has two examples, so there is nothing to find."
        return section("recall", title, empty(said))
    curves: charts.Curves = {
        "trained": ([float(k) for k in trained], list(trained.values())),
        context.raw: ([float(k) for k in raw], list(raw.values())),
    }
    alt = "Recall at k. " + " ".join(
        f"k = {k}: trained {number(trained[k])}, {context.raw} {number(raw[k])}." for k in trained
    )
    rows = [
        (str(k), [f"<td>{number(trained[k])}</td>", f"<td>{number(raw[k])}</td>"]) for k in trained
    ]
    chart = charts.lines(
        curves, alt, "k, neighbours looked at", unit=True, log2=True, dashed=context.raw
    )
    return section(
        "recall",
        title,
        note("The share of queries with one of their own class among the first k neighbours."),
        f'<div class="pair">{figure(chart)}',
        f"{table(title, ['Trained', context.raw.capitalize()], rows, corner='k')}</div>",
    )
