"""Charts as inline SVG; colours are variables of the page: one drawing serves light and dark."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

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
_LINES = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
WIDTH, HEIGHT, FONT = 420, 270, 13  # CSS pixels at full size


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
    axes.tick_params(colors=MUTED, labelcolor=MUTED, labelsize=FONT - 1, length=3, width=0.8)
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
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    alt: str,
    x_label: str,
    unit: bool = False,
    log2: bool = False,
) -> str:
    """Curves named at their last point, a colour and a line style each; `unit` keeps to 0..1."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    longest = max(len(name) for name in curves) if len(curves) > 1 else 0
    figure, axes = _axes(right=16 + 7.4 * longest)
    ends: list[tuple[str, float, float, str]] = []
    for i, (name, (x, y)) in enumerate(curves.items()):
        colour = SERIES[i % len(SERIES)]
        few = len(x) <= 24
        axes.plot(
            x,
            y,
            color=colour,
            linewidth=2,
            linestyle=_LINES[i % len(_LINES)],
            marker=_MARKERS[i % len(_MARKERS)] if few else None,
            markersize=5,
            markeredgewidth=0,
            clip_on=False,
        )
        ends.append((name, float(x[-1]), float(y[-1]), colour))
    if log2:
        ticks = sorted({float(v) for x, _ in curves.values() for v in x})
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    elif len({v for x, _ in curves.values() for v in x}) == 1:
        axes.xaxis.set_major_locator(FixedLocator([ends[0][1]]))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axes.margins(x=0.02, y=0.08)
    if unit:
        low, high = axes.get_ylim()
        axes.set_ylim(max(0.0, low), min(1.0, max(high, low + 0.02)))
    axes.set_xlabel(x_label, color=MUTED, fontsize=FONT - 1)
    if len(curves) > 1:
        low, high = axes.get_ylim()
        pixel = (high - low) / (axes.get_position().height * HEIGHT)
        heights = _spread([y for _, _, y, _ in ends], (FONT + 4) * pixel, high)
        right = max(x for _, x, _, _ in ends)
        for (name, _, _, colour), height in zip(ends, heights, strict=True):
            axes.annotate(
                name,
                (right, height),
                xytext=(9, 0),
                textcoords="offset points",
                va="center",
                color=colour,
                fontsize=FONT,
                annotation_clip=False,
                parse_math=False,
            )
    return _svg(figure, alt)


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
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.set_xlabel("cosine similarity", color=MUTED, fontsize=FONT - 1)
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
    figure, axes = _axes(height=400, left=10, right=10, top=10, bottom=10)
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
        axes.text(at, height + 0.03, f"name-{i}.", ha=side, fontsize=FONT - 1, color=INK)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.08)
    svg = _svg(figure, alt)
    for i, name in enumerate(names.values()):
        short = name if len(name) <= 18 else name[:17] + "…"
        svg = svg.replace(f">name-{i}.<", f' class="halo">{html.escape(short)}<')
    return svg
