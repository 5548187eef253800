"""The pairs of classes that the model confuses most."""

from __future__ import annotations

from kinfold.training.report import measures
from kinfold.training.report.context import ReportContext
from kinfold.training.report.markup import empty, note, scrolled, section
from kinfold.training.report.tiles import tile


def confusions(context: ReportContext) -> str:
    """The section: a table with a picture of each class and counts in both directions."""
    title = "Classes most often confused"
    if not len(context.near.queries):
        said = "No class has two examples, so there is nothing to find."
        return section("confusions", title, empty(said))
    pairs = measures.confusions(context.near)
    if not pairs:
        return section("confusions", title, empty("Every nearest neighbour is of the right class."))
    said = (
        "For each pair of classes, how many queries of one have their nearest neighbour in the "
        "other."
    )
    if context.pictures:
        said += f" The pictures are the most similar two {context.thing}s of such a pair."
    shape = "confused" if context.pictures else "confused text"
    rows = "".join(
        f'<tr><th scope="row">{tile(context, pair.example[0])}</th>'
        f"<td>{tile(context, pair.example[1])}</td>"
        f"<td>{_share(pair.wrong[0], pair.queries[0])}</td>"
        f"<td>{_share(pair.wrong[1], pair.queries[1])}</td></tr>\n"
        for pair in pairs
    )
    return section(
        "confusions",
        title,
        note(said),
        scrolled(
            title,
            f'<table class="{shape}">\n<thead><tr><th scope="col">First class</th>'
            '<th scope="col">Second class</th><th scope="col">First taken for second</th>'
            f'<th scope="col">Second taken for first</th></tr></thead>\n<tbody>\n{rows}</tbody>\n'
            "</table>",
        ),
    )


def _share(wrong: int, queries: int) -> str:
    return f"{wrong:,} of {queries:,}"
