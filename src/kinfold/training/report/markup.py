"""The parts that pages are built from: sections, notes, figures, tables, lists."""

from __future__ import annotations

from collections.abc import Sequence

from kinfold.training.report.words import text


def section(name: str, title: str, *body: str) -> str:
    """A section with its heading."""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title">{title}</h2>\n{"".join(body)}\n</section>\n'
    )


def note(words: str) -> str:
    """A paragraph of explanation; `words` is HTML."""
    return f'<p class="note">{words}</p>\n'


def empty(words: str) -> str:
    """A paragraph in the place of what is not there; `words` is HTML."""
    return f'<p class="empty">{words}</p>\n'


def figure(chart: str, caption: str = "", title: str = "") -> str:
    """A chart with a title above and a caption below; both are HTML."""
    return (
        "<figure>"
        + (f"<h3>{title}</h3>" if title else "")
        + chart
        + (f"<figcaption>{caption}</figcaption>" if caption else "")
        + "</figure>\n"
    )


def table(
    label: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], corner: str = ""
) -> str:
    """A table in a box that scrolls by itself, by keyboard too; cells are HTML, `<td` onwards."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in columns)
    first = f'<th scope="col">{text(corner)}</th>' if corner else "<td></td>"
    body = "".join(
        f'<tr><th scope="row">{text(name)}</th>{"".join(cells)}</tr>\n' for name, cells in rows
    )
    return scrolled(
        label,
        f"<table>\n<thead><tr>{first}{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>",
    )


def scrolled(label: str, content: str) -> str:
    """A box that scrolls by itself; its name is not that of the section that it stands in."""
    name = f"{text(label)}: table"
    return f'<div class="scroll" role="region" aria-label="{name}" tabindex="0">{content}</div>\n'


def definitions(title: str, items: dict[str, str]) -> str:
    """A list of names and texts that opens on demand; nothing where there is none."""
    if not items:
        return ""
    body = "".join(
        f"<dt>{text(name)}</dt><dd>{text(value)}</dd>\n" for name, value in items.items()
    )
    return f"<details><summary>{title}</summary>\n<dl>\n{body}</dl></details>\n"
