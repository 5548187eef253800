"""Queries of unseen classes beside their nearest neighbours."""

from __future__ import annotations

from kinfold.training.report import measures
from kinfold.training.report.context import ReportContext
from kinfold.training.report.markup import empty, note, section
from kinfold.training.report.tiles import tile

_STATES = {  # mark, words for a screen reader, the key
    "right": ("✓", "right", "right: solid frame, tick"),
    "wrong": ("✕", "wrong", "wrong: dashed frame, cross"),
    "over": (
        "·",
        "nothing left to find",
        "of another class, but all that there is to find came before it: dotted frame",
    ),
}


def queries(context: ReportContext) -> str:
    """The section: some typical, the worst and some good queries."""
    title = "Queries and their neighbours"
    groups = measures.gallery(context.near)
    if not groups:
        said = "No class has two examples, so there is nothing to find."
        return section("gallery", title, empty(said))
    said = "" if context.trained_on else "Training never saw these classes. "
    said += (
        f"Each query comes first, then the {context.thing}s nearest to it, nearest first, each "
        "with its cosine similarity to the query. “3 of 11 found” says that of the 11 others of "
        "its class 3 are among its first 11 neighbours."
    )
    if int(measures.class_sizes(context.y).max()) - 1 > measures.DEEPEST:
        said += f" Larger classes are judged on their first {measures.DEEPEST} neighbours."
    states = {state for group in groups for query in group.queries for state in query.states}
    key = "".join(
        f'<li class="{state}"><span class="frame">{_mark(state)}</span>{text}</li>'
        for state, (_, _, text) in _STATES.items()
        if state in states
    )
    shape = "queries" if context.pictures else "queries text"
    blocks = [
        f'<div class="group"><h3>{group.title}</h3>\n{note(group.rule)}'
        f'<div class="{shape}">\n{"".join(_query(context, q) for q in group.queries)}</div></div>\n'
        for group in groups
    ]
    return section("gallery", title, note(said), f'<ul class="key">{key}</ul>\n', *blocks)


def _query(context: ReportContext, query: measures.Query) -> str:
    items = []
    for index, similarity, state in zip(
        query.neighbours, query.similarities, query.states, strict=True
    ):
        said = (
            f'<span class="likeness">{_mark(state)} {similarity:.3f}'
            f'<span class="away"> {_STATES[state][1]}</span></span>'
        )
        items.append(f'<li class="{state}">{tile(context, int(index), said)}</li>\n')
    found = f'<span class="likeness">{query.found} of {query.relevant} found</span>'
    return (
        f'<div class="query"><div class="asked">{tile(context, query.index, found)}</div>\n'
        f"<ol>\n{''.join(items)}</ol></div>\n"
    )


def _mark(state: str) -> str:
    return f'<b class="mark" aria-hidden="true">{_STATES[state][0]}</b>'
