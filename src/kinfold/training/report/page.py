"""The page: its head and its sections, in their order."""

from __future__ import annotations

import string
from importlib import resources

import kinfold
from kinfold.training.report.contents import Report
from kinfold.training.report.context import ReportContext
from kinfold.training.report.sections import (
    atlas,
    confusions,
    data,
    gallery,
    head,
    pairs,
    recall,
    training,
)
from kinfold.training.report.words import text

SECTIONS = {
    "training": ("Training", training.training),
    "recall": ("Recall", recall.recall),
    "gallery": ("Neighbours", gallery.queries),
    "confusions": ("Confused classes", confusions.confusions),
    "pairs": ("Same or different", pairs.pairs),
    "data": ("Data to check", data.data),
    "map": ("Map", atlas.embedding_map),
}


def render(report: Report) -> str:
    """The whole page."""
    folder = resources.files("kinfold.training.report")
    context = ReportContext(report)
    links = "".join(
        f'<li><a href="#{name}">{title}</a></li>\n' for name, (title, _) in SECTIONS.items()
    )
    return string.Template(folder.joinpath("page.html").read_text("utf-8")).substitute(
        version=kinfold.__version__,
        css=folder.joinpath("page.css").read_text("utf-8"),
        title=text(report.title),
        head=head.head(context),
        links=links,
        sections="\n".join(write(context) for _, write in SECTIONS.values()),
    )
