"""The targets of streaming, and what a run reached of them."""

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.losses import (
    BACKENDS,
    EVALUATION,
    GRADIENT,
    KERAS,
    OURS,
    OURS_ONLY,
    PML,
    SMALL,
)

Row = dict[str, Any]
MIB = 2**20
AT, LARGEST = 8192, OURS_ONLY[0]

FASTER = (  # times faster at batch 8192
    ("torch", KERAS, 15.0),
    ("torch", PML, 15.0),
    ("jax", KERAS, 2.5),
    ("tensorflow", KERAS, 2.8),
)


def find(rows: Iterable[Row], backend: str, name: str, batch: int, step: str) -> Row | None:
    """The measurement asked for, or None where there is none or it failed."""
    for row in rows:
        key = (row["backend"], row["implementation"], row["batch"], row["step"])
        if key == (backend, name, batch, step) and "median_seconds" in row:
            return row
    return None


def over_ours(rows: Sequence[Row], row: Row) -> float | None:
    """Time of a row over that of our step with gradient, paired where measured together."""
    ours = find(rows, row["backend"], OURS, row["batch"], GRADIENT)
    if ours is None or row is ours:
        return None
    return row.get("to_first") or row["median_seconds"] / ours["median_seconds"]


def targets(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each target with its figure; `reached` is None where something was not measured."""
    at = [(b, find(rows, b, OURS, AT, GRADIENT)) for b in BACKENDS]
    out = []
    for backend, name, factor in FASTER:
        peer = find(rows, backend, name, AT, GRADIENT)
        figure = over_ours(rows, peer) if peer else None
        what = f"times faster than {name} on {backend}"
        out.append(_entry(AT, what, ">=", factor, figure, "{:.1f}"))
    for backend, ours in at:
        peer = find(rows, backend, KERAS, AT, GRADIENT)
        what = f"extra memory over that of {KERAS}, {backend}"
        figure, show = None, ""
        if ours and peer and peer.get("extra_bytes"):
            figure = ours["extra_bytes"] / peer["extra_bytes"]
            show = f"{{:.3f}} ({_mib(ours):.0f} of {_mib(peer):.0f} MiB)"
        out.append(_entry(AT, what, "<=", 0.1, figure, show))
    for backend in BACKENDS:
        ours = find(rows, backend, OURS, LARGEST, GRADIENT)
        show = f"{{:.0f}}, in {seconds(ours['median_seconds'])}" if ours else ""
        what = f"completes; extra MiB, {backend}"
        out.append(_entry(LARGEST, what, "<=", 256, _mib(ours) if ours else None, show))
    for backend in BACKENDS:
        peers = [find(rows, backend, KERAS, batch, GRADIENT) for batch in SMALL]
        ratios = [1 / slow for row in peers if row and (slow := over_ours(rows, row))]
        figure = max(ratios) if len(ratios) == len(SMALL) else None
        show = "{:.2f} (" + ", ".join(f"{ratio:.2f}" for ratio in ratios) + ")"
        what = f"time over that of {KERAS}, worst size, {backend}"
        out.append(_entry(f"{SMALL[0]} to {SMALL[-1]}", what, "<=", 1.05, figure, show))
    for backend in BACKENDS:
        row = find(rows, backend, OURS, AT, EVALUATION)
        figure = over_ours(rows, row) if row else None
        what = f"evaluation over forward plus gradient, {backend}"
        out.append(_entry(AT, what, "<=", 0.4, figure, "{:.2f}"))
    return out


def _entry(
    batch: Any, what: str, sign: str, bound: float, figure: float | None, show: str
) -> dict[str, Any]:
    reached = None
    if figure is not None:
        reached = figure >= bound if sign == ">=" else figure <= bound
    return {
        "batch": str(batch),
        "target": what,
        "bound": f"{sign} {bound:g}",
        "figure": figure,
        "text": "" if figure is None else show.format(figure),
        "reached": reached,
    }


def _mib(row: Row) -> float:
    return row["extra_bytes"] / MIB


def seconds(value: float) -> str:
    """A time with three figures and its unit."""
    scale, unit = (1e6, "us") if value < 1e-3 else (1e3, "ms") if value < 1 else (1.0, "s")
    number = value * scale
    digits = 2 if number < 10 else 1 if number < 100 else 0
    return f"{number:.{digits}f} {unit}"
