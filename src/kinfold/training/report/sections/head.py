"""The head of the page: the result in a sentence, the table, the settings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from kinfold.training.evaluation import gain_text
from kinfold.training.report import measures
from kinfold.training.report.context import ReportContext
from kinfold.training.report.markup import definitions, empty, note, table
from kinfold.training.report.verdict import JUDGED, verdict
from kinfold.training.report.words import count, number, percent, text

MEANING = {
    "recall@k": "the share of queries with at least one of their class among the first k",
    "precision@k": "the share of the first k that are of the query's class",
    "r_precision": "the share of the first R that are right, R being how many there are to find",
    "map@r": "mean average precision over the first R, R being how many there are to find",
    "map@k": "mean average precision over the first k",
    "map": "mean average precision over the whole ranking",
    "mrr": "the mean of 1 / rank of the first right neighbour",
    "ndcg@k": "discounted cumulative gain over the first k, 1 at best",
}
_RAW_ROWS = ("pixels", "raw")


def head(context: ReportContext) -> str:
    """The headline, the result, the table and the settings."""
    judged = verdict(context)
    said = [_result(context), *_advice(context)]
    return (
        (f'<p class="verdict {judged.kind}">{text(judged.words)}</p>\n' if judged else "")
        + f'<p class="result">{text(" ".join(said))}</p>\n'
        + _table(context)
        + _settings(context.report.settings)
    )


def _result(context: ReportContext) -> str:
    rows = context.report.table
    trained = rows.get("trained", {})
    seen = f"({context.trained_on:,} of them also trained on)"
    start = f"On {count(context.classes, context.noun)} " + (
        seen if context.trained_on else "never seen in training"
    )
    metric = "recall@1" if "recall@1" in trained else next(iter(trained), "")
    if not math.isfinite(trained.get(metric, math.nan)):
        return f"{start}, {count(len(context.y), context.thing)}: no result was computed."
    say = percent if metric == "recall@1" else number
    labels = dict.fromkeys(_RAW_ROWS, context.raw) | {"untrained": "the model before training"}
    others = [
        f"{label}: {say(rows[row][metric])}"
        for row, label in labels.items()
        if math.isfinite(rows.get(row, {}).get(metric, math.nan))
    ]
    value = say(trained[metric])
    said = (
        f"the nearest neighbour is of the same kind for {value} of the queries"
        if metric == "recall@1"
        else f"{metric} is {value}"
    )
    return f"{start}, {said}" + (f" ({'; '.join(others)})." if others else ".")


def _advice(context: ReportContext) -> list[str]:
    """What the result says about using the model, if anything."""
    report = context.report
    kept = {
        "trained": [],
        "start": ["Training made the network no better, so it was kept as it was before."],
        "raw": [f"No network did better than the {context.raw} on the validation classes."],
    }[report.best]
    judged = verdict(context)
    if _has_gain(context):
        return [*kept, *gain_text(report.gain)[1:]]
    if judged and judged.kind == "worse":
        return [*kept, f"Use the {context.raw} instead."]
    return kept


def _has_gain(context: ReportContext) -> bool:
    return all(name in context.report.gain for name in JUDGED)


def _table(context: ReportContext) -> str:
    report = context.report
    rows = report.table
    metrics = list(dict.fromkeys(m for row in rows.values() for m in row))
    if not metrics:
        return empty("No metric was computed.")
    labels = dict.fromkeys(_RAW_ROWS, context.raw.capitalize()) | {
        "untrained": "Before training",
        "trained": "After training" + ("" if report.best == "trained" else " (not kept)"),
    }
    best = {
        m: max((v for row in rows.values() if math.isfinite(v := row.get(m, math.nan))), default=0)
        for m in metrics
    }
    body = [
        (
            labels.get(name, name),
            [
                f"<td{_BEST if row.get(m) == best[m] else ''}>{number(row.get(m))}</td>"
                for m in metrics
            ],
        )
        for name, row in rows.items()
    ]
    if report.gain:
        cells = [_signed(report.gain.get(metric, {}).get("difference")) for metric in metrics]
        body.append(("Gain over raw", [f"<td>{cell}</td>" for cell in cells]))
    n = len(context.y)
    alone = int((measures.class_sizes(context.y) == 1).sum())
    said = (
        f"Each of the {count(n, context.thing)} searches the other {n - 1:,}, by cosine "
        "similarity. The best value of a column is bold."
    )
    if alone:
        said += (
            f" {alone:,} of them, alone in {'its class' if alone == 1 else 'their classes'}, "
            "cannot be found and do not count as queries."
        )
    gained = note(text(gain_text(report.gain)[0])) if _has_gain(context) else ""
    families = dict.fromkeys(re.sub(r"@\d+$", "@k", m) for m in metrics)
    meanings = {name: MEANING[name] for name in families if name in MEANING}
    return (
        table("Results", metrics, body)
        + gained
        + note(said)
        + definitions("What the columns mean", meanings)
    )


_BEST = ' class="best"'


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _settings(settings: Mapping[str, object]) -> str:
    items = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif isinstance(value, (list, tuple)):
            value = ", ".join(str(v) for v in value)
        items[str(key).replace("_", " ")] = str(value)
    return definitions("Settings", items)
