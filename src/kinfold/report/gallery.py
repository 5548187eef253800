"""Queries of unseen classes beside their nearest neighbours."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from kinfold.report import measures
from kinfold.report.words import described, note, readable, section

if TYPE_CHECKING:
    from kinfold.report.page import Subject

_KEY = {
    "right": ("✓", "right: solid frame, tick"),
    "wrong": ("✕", "wrong: dashed frame, cross"),
    "over": ("", "of another class, but all there are to find came before it"),
}


def queries(subject: Subject) -> str:
    """The section: the worst, some typical and some good queries."""
    title = "Queries and their neighbours"
    groups = measures.gallery(subject.report.embeddings, subject.y)
    if not groups:
        said = "No class has two examples, so there is nothing to find."
        return section("gallery", title, f'<p class="empty">{said}</p>')
    said = (
        "Only classes that training never saw. The query stands on the left, then the "
        f"{subject.thing}s nearest to it, nearest first. “3 of 11” below it says that of the 11 "
        "others of its class 3 are among its first 11 neighbours."
    )
    if int(measures.class_sizes(subject.y).max()) - 1 > measures.DEEPEST:
        said += f" Larger classes are judged on their first {measures.DEEPEST} neighbours."
    states = {state for group in groups for query in group.queries for state in query.states}
    key = "".join(
        f'<li class="{state}"><span class="tile">{_mark(state)}</span>{text}</li>'
        for state, (_, text) in _KEY.items()
        if state in states
    )
    shape = "queries" if subject.pictures else "queries text"
    blocks = [
        f'<div class="group"><h3>{group.title}</h3>\n{note(group.rule)}'
        f'<div class="{shape}">\n{"".join(_query(subject, q) for q in group.queries)}</div></div>\n'
        for group in groups
    ]
    return section("gallery", title, note(said), f'<ul class="key">{key}</ul>\n', *blocks)


def _query(subject: Subject, query: measures.Query) -> str:
    items = []
    for index, similarity, state in zip(
        query.neighbours, query.similarities, query.states, strict=True
    ):
        said = {"right": "right", "wrong": "wrong", "over": "nothing left to find"}[state]
        items.append(
            f'<li class="{state}" title="{said}, similarity {similarity:.2f}">'
            f'{_tile(subject, int(index), _mark(state))}<span class="away">{said}</span></li>\n'
        )
    return (
        f'<div class="query"><div class="asked">{_tile(subject, query.index)}'
        f'<p class="score">{query.found} of {query.relevant}</p></div>\n'
        f"<ol>\n{''.join(items)}</ol></div>\n"
    )


def _mark(state: str) -> str:
    sign = _KEY[state][0]
    return f'<b class="mark" aria-hidden="true">{sign}</b>' if sign else ""


def _tile(subject: Subject, index: int, mark: str = "") -> str:
    """An example in its frame with the name of its class."""
    label = subject.name(int(subject.y[index]))
    name, full = html.escape(readable(label)), html.escape(described(label))
    if subject.pictures is None:
        return f'<div class="tile"><bdi title="{full}">{name}</bdi>{mark}</div>'
    ink = ' class="ink"' if subject.pictures.drawings else ""
    return (
        f'<div class="tile"><img{ink} src="{subject.pictures.uri(index)}" alt="{full}">{mark}</div>'
        f'<bdi class="name" title="{full}">{name}</bdi>'
    )
