"""Charts as inline SVG; colours are variables of the page: one drawing serves light and dark."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from kinfold.training.report.words import shortened

# matplotlib draws with these marker colours; `_svg` turns each into the page's variable.
INK, MUTED, RULE, PAPER = "#010101", "#020202", "#030303", "#040404"
FIRST, SECOND, THIRD, FOURTH = SERIES = ("#050505", "#060606", "#070707", "#080808")
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    PAPER: "--paper",
    FIRST: "--first",
    SECOND: "--second",
    THIRD: "--third",
    FOURTH: "--fourth",
}
_LINES = ("-", (0, (1, 1)), (0, (7, 2, 1, 2)), (0, (7, 2, 1, 1, 1, 2)))
_DASHED = (0, (4, 3))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
WIDTH, HEIGHT, FONT = 358, 250, 13  # CSS pixels, as on a phone: there too 13 are 13

Curves = dict[str, tuple[list[float], list[float]]]


def _axes(height: int = HEIGHT, **room: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72), facecolor="none")
    left, right = room.get("left", 46), room.get("right", 12)
    bottom, top = room.get("bottom", 42), room.get("top", 14)
    axes = figure.add_axes(
        (
            left / WIDTH,
            bottom / height,
            (WIDTH - left - right) / WIDTH,
            (height - bottom - top) / height,
        ),
        facecolor="none",
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=MUTED, labelsize=FONT, length=3, width=0.8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=RULE, linewidth=1)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any, alt: str) -> str:
    import io

    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # the same names recur in every chart
    text = re.sub(r"font: (\S*px) [^;\"]*", r"font-size: \1", text)  # the page's own font
    text = text.replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None
    body = text[text.index(">") + 1 :]
    label = html.escape(alt, quote=True)
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{label}">{body}'


def _spread(wanted: Sequence[float], gap: float, top: float) -> list[float]:
    """Heights at least `gap` apart and not above `top`, near to the wanted ones."""
    out = np.array(wanted, dtype="float64")
    order = np.argsort(out, kind="stable")
    for below, above in pairwise(order):
        out[above] = max(out[above], out[below] + gap)
    out[order[-1]] = min(out[order[-1]], top)
    for above, below in pairwise(order[::-1]):
        out[below] = min(out[below], out[above] - gap)
    return [float(v) for v in out]


def lines(
    curves: Curves,
    alt: str,
    x_label: str,
    unit: bool = False,
    log2: bool = False,
    dashed: str = "",
    mark: tuple[float, str] | None = None,
    levels: Mapping[str, float] | None = None,
) -> str:
    """Curves named at their last point; the vertical axis starts at 0, or below it if they do.

    Args:
        curves: (x, y) by name; a colour and a line style each.
        alt: what the chart shows, in words.
        x_label: what x is.
        unit: whether y keeps to 0..1.
        log2: whether x grows by powers of two.
        dashed: the curve that is drawn dashed, as the raw input is.
        mark: an x to be marked, and the words for it.
        levels: by the name of a curve a height to compare it with, drawn dashed in its colour.
    """
    levels = levels or {}
    ends = [(name, float(y[-1]), SERIES[i % 4]) for i, (name, (_, y)) in enumerate(curves.items())]
    ends += [(f"{name}, raw", levels[name], colour) for name, _, colour in ends if name in levels]
    longest = max(len(name) for name, _, _ in ends) if len(ends) > 1 else 0
    figure, axes = _axes(right=16 + 7.2 * longest, top=26 if mark else 14)
    for i, (name, (x, y)) in enumerate(curves.items()):
        axes.plot(
            x,
            y,
            color=SERIES[i % len(SERIES)],
            linewidth=2,
            linestyle=_DASHED if name == dashed else _LINES[i % len(_LINES)],
            marker=_MARKERS[i % len(_MARKERS)] if len(x) <= 24 else None,
            markersize=5,
            markeredgewidth=0,
            clip_on=False,
        )
        if name in levels:
            axes.axhline(levels[name], color=SERIES[i % 4], linewidth=1.4, linestyle=_DASHED)
    _scale_x(axes, curves, log2)
    _scale_y(axes, unit)
    axes.set_xlabel(x_label, color=MUTED, fontsize=FONT)
    if mark:
        _mark(axes, *mark)
    if len(ends) > 1:
        _name_ends(axes, ends)
    return _svg(figure, alt)


def _scale_x(axes: Any, curves: Curves, log2: bool) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    values = sorted({float(v) for x, _ in curves.values() for v in x})
    axes.margins(x=0.02, y=0.08)
    if log2:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(values))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    elif len(values) == 1:
        axes.xaxis.set_major_locator(FixedLocator(values))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))


def _scale_y(axes: Any, unit: bool) -> None:
    """From 0: a part of an axis makes small differences look large."""
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    low, high = axes.get_ylim()
    lowest = float(axes.dataLim.y0)
    axes.set_ylim((0.0, 1.0) if unit else (0.0 if lowest >= 0 else low, max(high, 0.0)))


def _mark(axes: Any, x: float, words: str) -> None:
    axes.axvline(x, color=INK, linewidth=1.2, linestyle=(0, (2, 2)))
    low, high = axes.get_xlim()
    at = (x - low) / (high - low)
    axes.annotate(
        words,
        (x, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 6),
        textcoords="offset points",
        ha="left" if at < 0.25 else "right" if at > 0.75 else "center",
        color=INK,
        fontsize=FONT,
        annotation_clip=False,
    )


def _name_ends(axes: Any, ends: Sequence[tuple[str, float, str]]) -> None:
    low, high = axes.get_ylim()
    pixel = (high - low) / (axes.get_position().height * HEIGHT)
    heights = _spread([y for _, y, _ in ends], (FONT + 3) * pixel, high)
    for (name, _, colour), height in zip(ends, heights, strict=True):
        axes.annotate(
            name,
            (1.0, height),
            xycoords=("axes fraction", "data"),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=FONT,
            annotation_clip=False,
            parse_math=False,
        )


def histogram(
    positive: np.ndarray, negative: np.ndarray, limits: tuple[float, float], alt: str
) -> str:
    """Shares of pairs by similarity; positives filled, negatives dashed, both of area one."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _axes(height=240, left=14, top=34)
    edges = np.linspace(*limits, 61)
    styles = (
        ("same class", positive, FIRST, "-"),
        ("different classes", negative, SECOND, (0, (4, 1.6))),
    )
    for name, values, colour, style in styles:
        shares = np.histogram(values, edges)[0] / max(len(values), 1)
        axes.stairs(shares, edges, color=colour, alpha=0.22, fill=True, linewidth=0)
        axes.stairs(shares, edges, color=colour, linewidth=1.8, linestyle=style, label=name)
    axes.set_xlim(*limits)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xlabel("cosine similarity", color=MUTED, fontsize=FONT)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=2,
        frameon=False,
        fontsize=FONT,
        labelcolor=INK,
        handlelength=1.8,
        columnspacing=1.6,
        borderaxespad=0.2,
    )
    return _svg(figure, alt)


def scatter(points: np.ndarray, y: np.ndarray, names: dict[int, str], alt: str) -> str:
    """Points of at most ten classes, a mark and a colour each, named above their middle."""
    figure, axes = _axes(height=360, left=10, right=10, top=10, bottom=10)
    axes.axis("off")
    places = []
    for i, label in enumerate(names):
        part = points[y == label]
        axes.scatter(
            part[:, 0],
            1 - part[:, 1],
            s=16,
            marker=_MARKERS[i % len(_MARKERS)],
            color=SERIES[i % len(SERIES)],
            alpha=0.75,
            linewidths=0,
            clip_on=False,
        )
        places.append((float(np.median(part[:, 0])), 1 - float(np.quantile(part[:, 1], 0.1))))
    taken: list[tuple[float, float]] = []
    for i in sorted(range(len(places)), key=lambda i: places[i][1]):
        x, height = places[i]
        for x_below, below in taken:  # from the lowest up
            if abs(x - x_below) < 0.3 and abs(height - below) < 0.05:
                height = below + 0.05
        taken = sorted([*taken, (x, height)], key=lambda place: place[1])
        side = "left" if x < 0.2 else "right" if x > 0.8 else "center"
        at = 0.0 if x < 0.2 else 1.0 if x > 0.8 else x
        # The name itself goes in afterwards: the page has fonts that matplotlib lacks.
        axes.text(at, height + 0.03, f"name-{i}.", ha=side, fontsize=FONT, color=INK)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.08)
    svg = _svg(figure, alt)
    for i, name in enumerate(names.values()):
        short = html.escape(shortened(name, 18))
        svg = svg.replace(f">name-{i}.<", f' class="halo">{short}<')
    return svg
