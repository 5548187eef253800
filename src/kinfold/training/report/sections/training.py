"""How the training went: loss and metrics over the epochs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from kinfold.training.report import charts
from kinfold.training.report.contents import Report
from kinfold.training.report.context import ReportContext
from kinfold.training.report.markup import empty, figure, note, section
from kinfold.training.report.words import count, number, text

_METRIC = re.compile(r"(recall|precision|map|ndcg)@\w+|r_precision|map|mrr")


def training(context: ReportContext) -> str:
    """The section: curves as far as there is a history, with the epoch kept and the raw input."""
    report = context.report
    losses, metrics, lost = _curves(report.history)
    epochs = [x for curves in (losses, metrics) for xs, _ in curves.values() for x in xs]
    mark = _mark(report, epochs)
    figures = []
    if losses:
        alt = _alt("Loss", losses, mark)
        figures.append(figure(charts.lines(losses, alt, "epoch", mark=mark), title="Loss"))
    if metrics:
        # More curves than colours cannot be told apart.
        drawn = dict(list(metrics.items())[: len(charts.SERIES)])
        levels = {
            name: float(value)
            for name in drawn
            if math.isfinite(value := _baseline(report.validation_baseline, name))
        }
        alt = _alt("Retrieval", drawn, mark)
        alt += "".join(f" {context.raw}, {name}: {number(v)}." for name, v in levels.items())
        chart = charts.lines(drawn, alt, "epoch", unit=True, mark=mark, levels=levels)
        said = f"Dashed: {context.raw}, on the same classes." if levels else ""
        figures.append(figure(chart, said, title="Retrieval on validation data"))
    return section(
        "training",
        "Training",
        note(f"<strong>{text(report.warning)}</strong>") if report.warning else "",
        _notes(context, bool(figures), lost),
        f'<div class="pair">{"".join(figures)}</div>'
        if figures
        else empty("There is no history of the training to draw."),
    )


def _mark(report: Report, epochs: list[float]) -> tuple[float, str] | None:
    """Where the epoch that was kept is marked; outside the history it would stretch the axis."""
    best = report.best_epoch
    if report.best != "trained" or best is None or not epochs:
        return None
    return (float(best), f"best, epoch {best}") if min(epochs) <= best <= max(epochs) else None


def _notes(context: ReportContext, drawn: bool, lost: int) -> str:
    report = context.report
    kept = {
        "trained": f"The model of epoch {report.best_epoch} did best on the validation classes, "
        "and was kept.",
        "start": "No epoch did better on the validation classes than the network before training, "
        "so the untrained network was kept.",
        "raw": f"No network did better on the validation classes than the {context.raw}.",
    }
    said = [kept[report.best]] if report.best != "trained" or report.best_epoch is not None else []
    if drawn:
        said.append("The vertical axes start at 0.")
    if lost:
        said.append(f"{count(lost, 'value')} not finite and left out.")
    return note(" ".join(said)) if said else ""


def _curves(history: dict[str, list[float]]) -> tuple[charts.Curves, charts.Curves, int]:
    """The losses and the metrics that are finite, and how many values are not."""
    columns = {name: _floats(values) for name, values in history.items()}
    epochs = columns.pop("epoch", [])
    losses: charts.Curves = {}
    metrics: charts.Curves = {}
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
    return losses, metrics, lost


def _baseline(values: object, name: str) -> float:
    """The metric of the raw input that belongs to a curve; NaN where there is none."""
    known = dict(values)  # type: ignore[call-overload]
    value = known.get(f"val_{name.removeprefix('val_')}", known.get(name))
    return _floats([value])[0]


def _floats(values: Iterable[object]) -> list[float]:
    out = []
    for value in values:
        try:
            out.append(float(value))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            out.append(math.nan)
    return out


def _alt(title: str, curves: charts.Curves, mark: tuple[float, str] | None) -> str:
    said = []
    for name, (x, y) in curves.items():
        part = f"{name} {y[0]:.3g} at epoch {x[0]:g}"
        if len(y) > 1:
            part += f", {y[-1]:.3g} at epoch {x[-1]:g}, between {min(y):.3g} and {max(y):.3g}"
        said.append(part)
    return f"{title} by epoch: {'; '.join(said)}." + (f" Marked: {mark[1]}." if mark else "")
