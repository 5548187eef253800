"""Two plots: time and memory against batch size, a panel a backend."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.losses import BACKENDS, GRADIENT, IMPLEMENTATIONS, KERAS, OURS, PML
from benchmarks.targets import Row

INK, MUTED, RULE = "#1f2328", "#59636e", "#e4e7eb"
LOOKS: dict[str, dict[str, Any]] = {
    OURS: {"color": "#0b57d0", "linewidth": 3.0, "marker": "o", "markersize": 5, "zorder": 4},
    KERAS: {"color": "#b3261e", "linestyle": (0, (5, 2)), "marker": "s", "markersize": 3.5},
    PML: {"color": "#7a5c00", "linestyle": (0, (1.2, 1.4)), "marker": "^", "markersize": 4},
}
NAMES = {
    OURS: "kinfold.losses.CircleLoss",
    KERAS: "keras.losses.Circle",
    PML: "pytorch-metric-learning",
}
TITLES = {"jax": "JAX, jit", "torch": "PyTorch, eager", "tensorflow": "TensorFlow, tf.function"}
WIDTH, HEIGHT = 9.0, 3.9  # inches at 100 pixels


def draw(rows: Sequence[Row], out: Path) -> list[Path]:
    """Write losses_time.svg and losses_memory.svg; return where."""
    figures = {"losses_time.svg": time(rows), "losses_memory.svg": memory(rows)}
    return [save(figure, out / name) for name, figure in figures.items()]


def save(figure: Any, path: Path) -> Path:
    """Write an SVG beside the file and put it in its place; return where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".svg.part")
    figure.savefig(beside, format="svg", metadata={"Date": None})
    return beside.replace(path)


def time(rows: Sequence[Row]) -> Any:
    title = "Seconds a step, forward plus gradient"
    return _panels(rows, title, "median_seconds", _seconds)


def memory(rows: Sequence[Row]) -> Any:
    title = "Peak memory above the inputs, forward plus gradient"
    return _panels(rows, title, "extra_bytes", _bytes, base=16)


def _panels(
    rows: Sequence[Row], title: str, key: str, unit: Callable[[float], str], base: int = 10
) -> Any:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    matplotlib.rcParams["svg.hashsalt"] = "kinfold"
    shown = [row for row in rows if row["step"] == GRADIENT and "error" not in row]
    backends = [name for name in BACKENDS if any(row["backend"] == name for row in shown)]
    figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white")
    panels = figure.subplots(1, max(len(backends), 1), sharex=True, sharey=True, squeeze=False)[0]
    batches = sorted({row["batch"] for row in shown})
    ticks = batches if len(batches) < 5 else sorted({*batches[:-1:2], batches[-1]})
    for axes, backend in zip(panels, backends, strict=False):
        for name in IMPLEMENTATIONS:
            points = sorted(
                (row["batch"], row[key])
                for row in shown
                if (row["backend"], row["implementation"]) == (backend, name)
                and row.get(key, 0) > 0
            )
            if points:
                axes.plot(*zip(*points, strict=True), **{"linewidth": 1.8, **LOOKS[name]})
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_title(TITLES[backend], color=INK, fontsize=11, loc="left")
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:.0f}"))
        axes.yaxis.set_major_locator(LogLocator(base, numticks=12))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: unit(v)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
        plain(axes)
        axes.set_xlabel("batch", color=MUTED, fontsize=9)
    _legend(figure, {row["implementation"] for row in shown})
    figure.text(0.012, 0.955, title, color=INK, fontsize=12, weight="bold", va="center")
    figure.subplots_adjust(left=0.075, right=0.975, top=0.77, bottom=0.135, wspace=0.08)
    return figure


def plain(axes: Any) -> None:
    """Muted ticks, a light grid and no box."""
    axes.tick_params(colors=MUTED, labelsize=9, length=3)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)


def _legend(figure: Any, names: set[str]) -> None:
    from matplotlib.lines import Line2D

    present = [name for name in IMPLEMENTATIONS if name in names]
    lines = [Line2D([], [], **{"linewidth": 1.8, **LOOKS[name]}) for name in present]
    figure.legend(
        lines,
        [NAMES[name] for name in present],
        loc="center left",
        bbox_to_anchor=(0.003, 0.89),
        ncols=len(present) or 1,
        frameon=False,
        fontsize=10,
        labelcolor=INK,
        handlelength=3,
    )


def _seconds(value: float) -> str:
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= scale:
            return f"{value / scale:.0f} {unit}"
    return f"{value:.0e} s"


def _bytes(value: float) -> str:
    for scale, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= scale:
            return f"{value / scale:.0f} {unit}"
    return f"{value:.0f} B"
