"""How the report writes numbers, names and its parts."""

from __future__ import annotations

import html
import unicodedata


def number(value: float | None) -> str:
    """Three decimals, or a dash where there is no value."""
    finite = value is not None and value - value == 0
    return f"{value:.3f}" if finite else "-"


def percent(value: float, digits: int = 0) -> str:
    """A percentage that reads 0% or 100% only where the value is exactly that."""
    for more in (digits, digits + 1):
        text = f"{100 * value:.{more}f}"
        if value in (0.0, 1.0) or float(text) not in (0.0, 100.0):
            return f"{text}%"
    least = 10.0**-more
    return f"over {100 - least:.{more}f}%" if value > 0.5 else f"under {least:.{more}f}%"


def count(n: int, noun: str) -> str:
    """A number of things: "1 class", "766 classes"."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{n:,} {noun if n == 1 else plural}"


def part_of(part: int, whole: int) -> str:
    """Reads "all 12", or "5 of 12"."""
    return f"all {whole:,}" if part == whole else f"{part:,} of {whole:,}"


def readable(name: str) -> str:
    """A class name that can be seen: a mark gets a base, what has no shape gets its number."""
    if all(unicodedata.category(c)[0] in "CZ" for c in name):
        return " ".join(f"U+{ord(c):04X}" for c in name) or "(no name)"
    return "\N{DOTTED CIRCLE}" + name if unicodedata.category(name[0])[0] == "M" else name


def described(name: str) -> str:
    """A class name in full: a single character beyond ASCII letters also by its Unicode name."""
    if len(name) != 1 or (name.isascii() and name.isalnum()):
        return readable(name)
    unicode = unicodedata.name(name, "no Unicode name")
    return f"{readable(name)} (U+{ord(name):04X} {unicode})"


def section(name: str, title: str, *body: str) -> str:
    """A section with its heading."""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title">{title}</h2>\n{"".join(body)}\n</section>\n'
    )


def note(text: str) -> str:
    """A paragraph of explanation; `text` is HTML."""
    return f'<p class="note">{text}</p>\n'


def figure(chart: str, caption: str = "", title: str = "") -> str:
    """A chart with a title above and a caption below; both are HTML."""
    return (
        "<figure>"
        + (f"<h3>{title}</h3>" if title else "")
        + chart
        + (f"<figcaption>{caption}</figcaption>" if caption else "")
        + "</figure>\n"
    )


def table(columns: list[str], rows: list[tuple[str, list[str]]], corner: str = "") -> str:
    """A table in a box that scrolls by itself; cells are HTML, `<td` onwards."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    first = f'<th scope="col">{html.escape(corner)}</th>' if corner else "<td></td>"
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>{"".join(cells)}</tr>\n'
        for name, cells in rows
    )
    return (
        f'<div class="scroll"><table>\n<thead><tr>{first}{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>\n"
    )


def definitions(title: str, items: dict[str, str]) -> str:
    """A list of names and texts that opens on demand; nothing where there is none."""
    if not items:
        return ""
    body = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>\n"
        for name, text in items.items()
    )
    return f"<details><summary>{title}</summary>\n<dl>\n{body}</dl></details>\n"
