"""`python -m benchmarks losses --all`: every loss beside its namesakes, and what is slower."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import machine, measure
from benchmarks.catalogue import CATALOGUE, Entry
from benchmarks.losses import BACKENDS, DIM, GRADIENT, OURS
from benchmarks.tables import table
from benchmarks.targets import MIB, Row, seconds

BATCHES = (1024, 8192)
BUDGET = 0.6  # seconds spent on the repeats of a step
TOGETHER = 2.0  # a peer's step that takes longer is timed by its one run, unless ours is near it
NEAR = 2.0  # how many times ours such a step may take and still be timed in turns with ours
SLOWER = 1.05  # ours over the peer's time beyond which ours counts as slower
MOST = 256  # extra MiB that a loss of ours may take at the largest batch


def run(backends: Sequence[str], out: Path) -> dict[str, Any]:
    """Measure what all.json in `out` has not yet; it is written after every process."""
    os.environ.setdefault("KERAS_BACKEND", backends[0])  # to look what there is; no step runs here
    skipped = [entry.name for entry in CATALOGUE if not entry.ours.exists()]
    if skipped:
        print(f"Not in this version, skipped: {', '.join(skipped)}", file=sys.stderr)
    entries = [entry for entry in CATALOGUE if entry.name not in skipped]
    todo = [(entry, b, n) for b in backends for n in BATCHES for entry in entries]
    record = {"benchmark": "losses --all", **machine.describe(), "skipped": skipped}
    rows = {_key(row): row for row in _begun(out / "all.json", record)}
    start = perf_counter()
    for number, (entry, backend, batch) in enumerate(todo, 1):
        if (backend, batch, entry.name, OURS) in rows:
            continue
        print(
            f"[{perf_counter() - start:4.0f} s] {number}/{len(todo)} {backend}, "
            f"batch {batch}, {entry.name}",
            file=sys.stderr,
            flush=True,
        )
        for row in measured(entry, backend, batch):
            rows.setdefault(_key(row), {}).update(row)
            machine.write(out / "all.json", {**record, "rows": list(rows.values())})
    return {**record, "rows": list(rows.values())}


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("backend", "batch", "loss", "implementation"))


def _begun(path: Path, record: dict[str, Any]) -> list[Row]:
    """What a run of the same code, with the same packages on the same machine, has measured."""
    if not path.exists():
        return []
    before = json.loads(path.read_text(encoding="utf-8"))
    same = all(before.get(name) == record[name] for name in ("commit", "versions", "device"))
    return before.get("rows", []) if same else []


def measured(entry: Entry, backend: str, batch: int) -> Iterator[Row]:
    """Rows of a loss and its peers; a later row of an implementation completes the one before.

    Each peer is weighed first, in a process of its own, where it may fail or be slow: only those
    that are neither run in turns with ours.
    """
    job = {"loss": entry.name, "backend": backend, "batch": batch, "budget": BUDGET}
    alone: dict[str, float] = {}
    for name in entry.beside(backend):
        (row,) = measure.in_subprocess({**job, "time": False, "steps": [(name, GRADIENT)]})
        if "error" not in row:
            alone[name] = row["median_seconds"] = row["first_seconds"]
        yield row
    quick = [name for name, taken in alone.items() if taken <= TOGETHER]
    ours, *beside = _in_turns(job, quick)
    yield from (ours, *beside)
    most = NEAR * ours.get("median_seconds", 0.0)
    if near := [name for name, taken in alone.items() if TOGETHER < taken <= most]:
        yield from (row for row in _in_turns(job, near) if "error" not in row)


def _in_turns(job: dict[str, Any], peers: Sequence[str]) -> list[Row]:
    steps = [(name, GRADIENT) for name in (OURS, *peers)]
    return measure.in_subprocess({**job, "time": True, "steps": steps})


def report(record: dict[str, Any]) -> str:
    """Everything that the terminal shows."""
    device, rows = record["device"], record["rows"]
    return "\n".join(
        (
            f"Forward plus gradient, float32, d = {DIM}, classes of four; {device['cpu']}, "
            f"{device['cores']} cores, {device['memory_gib']} GiB",
            "",
            measurements(rows),
            "",
            "peer/ours: median time of the peer's step over that of ours.",
            *verdicts(rows),
        )
    )


def measurements(rows: Sequence[Row]) -> str:
    """A line a loss and peer, by backend and batch."""
    head = ("backend", "batch", "loss", "ours", "MiB", "peer", "peer's", "MiB", "peer/ours")
    order = [entry.name for entry in CATALOGUE]

    def place(row: Row) -> tuple[Any, ...]:
        return BACKENDS.index(row["backend"]), row["batch"], order.index(row["loss"])

    lines = []
    for ours in sorted((row for row in rows if row["implementation"] == OURS), key=place):
        start = (ours["backend"], ours["batch"], ours["loss"], *_cells(ours))
        for peer in _peers(rows, ours) or [None]:
            if peer is None:
                lines.append((*start, "", "", "", ""))
                continue
            ratio = over(peer, ours)
            shown = "" if ratio is None else f"{ratio:.2f}"
            lines.append((*start, peer["implementation"], *_cells(peer), shown))
    return table(head, lines, left=(0, 2, 5))


def over(peer: Row, ours: Row) -> float | None:
    """Time of a peer's step over that of ours, paired where they took turns."""
    if "error" in peer or "error" in ours:
        return None
    return peer.get("to_first") or peer["median_seconds"] / ours["median_seconds"]


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Which of ours are slower than a namesake, which take too much memory, which failed."""
    all_ours = [row for row in rows if row["implementation"] == OURS]
    pairs = [(ours, peer) for ours in all_ours for peer in _peers(rows, ours)]
    ratios = [(ours, peer, over(peer, ours)) for ours, peer in pairs]
    slower = [
        f"{_name(ours)} ({peer['implementation']} {ratio:.2f})"
        for ours, peer, ratio in ratios
        if ratio is not None and ratio < 1 / SLOWER
    ]
    heavy = [
        f"{_name(row)} ({row['extra_bytes'] / MIB:.0f})"
        for row in all_ours
        if row["batch"] == BATCHES[-1] and row.get("extra_bytes", 0) > MOST * MIB
    ]
    failed = [f"{_name(row)} ({row['error']})" for row in all_ours if "error" in row]
    lines = [
        f"Slower than a namesake (peer/ours below 1/{SLOWER}): {', '.join(slower) or 'none'}",
        f"Over {MOST} MiB at batch {BATCHES[-1]}: {', '.join(heavy) or 'none'}",
    ]
    return [*lines, f"Failed: {', '.join(failed)}"] if failed else lines


def _peers(rows: Sequence[Row], ours: Row) -> list[Row]:
    same = ("backend", "batch", "loss")
    return [
        row
        for row in rows
        if row["implementation"] != OURS and all(row[name] == ours[name] for name in same)
    ]


def _name(row: Row) -> str:
    return f"{row['loss']} on {row['backend']}, {row['batch']}"


def _cells(row: Row) -> tuple[str, str]:
    """Time and extra MiB, or what went wrong."""
    if "error" in row:
        return row["error"][:40], ""
    extra = f"{row['extra_bytes'] / MIB:.1f}" if "extra_bytes" in row else ""
    return seconds(row["median_seconds"]), extra
