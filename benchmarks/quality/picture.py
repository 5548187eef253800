"""One plot: what each loss reaches, ours and the peer's, with the spread over seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.losses import OURS, PML
from benchmarks.quality.recipes import IMPLEMENTATIONS
from benchmarks.quality.results import METRICS

APART = {OURS: 0.14, PML: -0.14}  # of the distance between two losses
ROW = 0.3  # inches a loss
NAMES = {OURS: "kinfold", PML: "pytorch-metric-learning"}


def draw(summary: Sequence[dict[str, Any]], out: Path) -> Path:
    """Write quality.svg; return where."""
    return plots.save(figure(summary), out / "quality.svg")


def figure(summary: Sequence[dict[str, Any]]) -> Any:
    """A panel a metric; the losses in the order of `summary`, the first on top."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "kinfold"
    height = 1.25 + ROW * max(len(summary), 1)  # inches
    drawn = Figure(figsize=(plots.WIDTH, height), facecolor="white")
    panels = drawn.subplots(1, len(METRICS), sharey=True)
    for axes, metric in zip(panels, METRICS, strict=True):
        for implementation in IMPLEMENTATIONS:
            _dots(axes, summary, implementation, metric)
        plots.plain(axes)
        axes.set_title(metric, color=plots.INK, fontsize=11, loc="left")
        axes.set_yticks(range(len(summary)), [row["loss"] for row in summary])
        axes.tick_params(axis="y", length=0, labelsize=9, labelcolor=plots.INK)
        axes.set_ylim(max(len(summary), 1) - 0.5, -0.5)
    title = "Unseen characters found, mean and standard deviation over seeds"
    drawn.text(0.012, 1 - 0.2 / height, title, color=plots.INK, fontsize=12, weight="bold")
    drawn.legend(
        *zip(*((_dot(name), NAMES[name]) for name in IMPLEMENTATIONS), strict=True),
        loc="center left",
        bbox_to_anchor=(0.003, 1 - 0.4 / height),
        ncols=len(IMPLEMENTATIONS),
        frameon=False,
        fontsize=10,
        labelcolor=plots.INK,
    )
    drawn.subplots_adjust(
        left=0.33, right=0.98, top=1 - 0.85 / height, bottom=0.35 / height, wspace=0.08
    )
    return drawn


def _dots(axes: Any, summary: Sequence[dict[str, Any]], name: str, metric: str) -> None:
    points = [
        (place - APART[name], row[name][metric])
        for place, row in enumerate(summary)
        if row[name][metric] is not None
    ]
    axes.errorbar(
        [measured["mean"] for _, measured in points],
        [place for place, _ in points],
        xerr=[measured["spread"] or 0.0 for _, measured in points],
        linestyle="none",
        elinewidth=1.4,
        **_look(name),
    )


def _look(name: str) -> dict[str, Any]:
    look = plots.LOOKS[name]
    return {"color": look["color"], "marker": look["marker"], "markersize": 5}


def _dot(name: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="none", **_look(name))
