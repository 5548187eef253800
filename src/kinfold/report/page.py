"""The page, and its head: the result in a sentence, the table, the settings."""

from __future__ import annotations

import html
import math
import re
import string
from collections.abc import Mapping
from importlib import resources

import numpy as np

import kinfold
from kinfold.evaluation import VECTOR_ROWS, gain_text
from kinfold.report import Report, gallery, measures, sections
from kinfold.report.images import Pictures
from kinfold.report.words import count, definitions, note, number, percent, table

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


class Subject:
    """What a report is about: the examples, their classes, and what to call them."""

    def __init__(self, report: Report) -> None:
        x = np.asarray(report.test.x)
        self.report = report
        self.y = np.asarray(report.test.y).reshape(-1)
        self.classes = len(np.unique(self.y))
        self.pictures = Pictures(x) if x.ndim in (3, 4) else None
        self.thing = "image" if self.pictures else "example"
        self.raw = "raw pixels" if self.pictures else "raw embeddings"

    def name(self, label: int) -> str:
        names = self.report.test.names
        return str(names[label]) if 0 <= label < len(names) else f"class {label}"


def render(report: Report) -> str:
    """The whole page."""
    folder = resources.files("kinfold.report")
    subject = Subject(report)
    parts = (
        sections.training(subject),
        sections.recall(subject),
        gallery.queries(subject),
        sections.similarities(subject),
        sections.embedding_map(subject),
    )
    return string.Template(folder.joinpath("page.html").read_text("utf-8")).substitute(
        version=kinfold.__version__,
        css=folder.joinpath("page.css").read_text("utf-8"),
        title=html.escape(report.title),
        result=html.escape(" ".join([_result(subject), *_verdict(subject)])),
        table=_table(subject),
        settings=_settings(report.settings),
        sections="\n".join(parts),
    )


def _result(subject: Subject) -> str:
    rows = subject.report.table
    trained = rows.get("trained", {})
    noun = "character" if subject.report.title == "glyphs" else "class"
    start = f"On {count(subject.classes, noun)} never seen in training"
    metric = "recall@1" if "recall@1" in trained else next(iter(trained), "")
    if not math.isfinite(trained.get(metric, math.nan)):
        return f"{start}, {count(len(subject.y), subject.thing)}: no result was computed."
    say = percent if metric == "recall@1" else number
    others = [
        f"{label}: {say(rows[row][metric])}"
        for row, label in (
            ("pixels", subject.raw),
            ("raw", subject.raw),
            ("untrained", "the model before training"),
        )
        if math.isfinite(rows.get(row, {}).get(metric, math.nan))
    ]
    value = say(trained[metric])
    said = (
        f"the nearest neighbour is of the same kind for {value} of the queries"
        if metric == "recall@1"
        else f"{metric} is {value}"
    )
    return f"{start}, {said}" + (f" ({'; '.join(others)})." if others else ".")


def _verdict(subject: Subject) -> list[str]:
    """What the gain over raw embeddings says about using the model, if anything."""
    return gain_text(subject.report.gain)[1:] if subject.report.gain else []


def _table(subject: Subject) -> str:
    rows = subject.report.table
    metrics = list(dict.fromkeys(m for row in rows.values() for m in row))
    if not metrics:
        return '<p class="empty">No metric was computed.</p>'
    labels = {
        "pixels": subject.raw.capitalize(),
        "untrained": "Before training",
        "trained": "After training",
    }
    if not subject.pictures:
        labels |= {name: label.capitalize() for name, label in VECTOR_ROWS.items()}
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
    gain = subject.report.gain
    if gain:
        cells = [_signed(gain.get(metric, {}).get("difference")) for metric in metrics]
        body.append(("Gain over raw", [f"<td>{cell}</td>" for cell in cells]))
    n = len(subject.y)
    alone = int((measures.class_sizes(subject.y) == 1).sum())
    said = (
        f"Each of the {count(n, subject.thing)} searches the other {n - 1:,}, by cosine "
        "similarity. The best value of a column is bold."
    )
    if alone:
        said += (
            f" {alone:,} of them, alone in {'its class' if alone == 1 else 'their classes'}, "
            "cannot be found and do not count as queries."
        )
    gained = note(html.escape(gain_text(gain)[0])) if gain else ""
    families = dict.fromkeys(re.sub(r"@\d+$", "@k", m) for m in metrics)
    meanings = {name: MEANING[name] for name in families if name in MEANING}
    return (
        table(metrics, body) + gained + note(said) + definitions("What the columns mean", meanings)
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
