"""One example on the page: its picture, then in words what it is."""

from __future__ import annotations

import html

import numpy as np

from kinfold.datasets import Split
from kinfold.training.report.context import ReportContext, class_name, file_name
from kinfold.training.report.images import Pictures
from kinfold.training.report.words import code_point, described, readable, shortened, unicode_name


def tile(context: ReportContext, index: int, said: str = "") -> str:
    """An example of the test; `said` is HTML that stands between its picture and its name."""
    return tile_of(context, context.report.test, context.pictures, index, said)


def tile_of(
    context: ReportContext, split: Split, pictures: Pictures | None, index: int, said: str = ""
) -> str:
    """An example of any split."""
    label = class_name(split, int(np.asarray(split.y).reshape(-1)[index]))
    file = file_name(split, index)
    full = html.escape(described(label))
    if pictures is None:
        return f'<div class="frame">{name(context, label)}</div>{said}{_file(file)}'
    alt = full if file is None else f"{full}, {html.escape(readable(file))}"
    ink = ' class="ink"' if pictures.drawings else ""
    frame = f'<div class="frame"><img{ink} src="{pictures.uri(index)}" alt="{alt}"></div>'
    return f"{frame}{said}{name(context, label)}{_file(file)}"


def name(context: ReportContext, label: str) -> str:
    """The name of a class; of characters with the code point and the Unicode name."""
    seen, full = html.escape(readable(label)), html.escape(described(label))
    if not (context.characters and len(label) == 1):
        return f'<bdi class="name" title="{full}">{seen}</bdi>'
    sign = "" if readable(label) == code_point(label) else f'<bdi class="sign">{seen}</bdi> '
    return (
        f'<span class="name" title="{full}">{sign}{code_point(label)} '
        f'<span class="unicode">{html.escape(unicode_name(label))}</span></span>'
    )


def _file(file: str | None) -> str:
    if file is None:
        return ""
    base = file.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]  # its folder is mostly the class
    full = html.escape(readable(file))
    return f'<bdi class="file" title="{full}">{html.escape(shortened(base, 24))}</bdi>'
