"""The printed tables: every measurement, and the targets with what was reached."""

from collections.abc import Sequence
from typing import Any

from benchmarks.losses import BACKENDS, DIM, GRADIENT, IMPLEMENTATIONS, flops
from benchmarks.targets import MIB, Row, over_ours, seconds


def report(record: dict[str, Any]) -> str:
    """Everything that the terminal shows."""
    device, commit = record["device"], record["commit"] or {"id": "unknown", "dirty": False}
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return "\n".join(
        (
            f"Circle loss, float32, d = {DIM}, classes of four; {device['cpu']}, "
            f"{device['cores']} cores, {device['memory_gib']} GiB",
            f"{record['date']}, commit {commit['id'][:10]}{' (dirty)' if commit['dirty'] else ''}",
            versions,
            "",
            measurements(record["rows"]),
            "",
            "row/ours: median time of the row over that of our step with gradient.",
            "product: GFLOP/s of x @ x.T, n = 4096, in the same process. Shares of it that the run",
            "reaches: counting 6 n n d operations, and 4 n n d where it uses the symmetry.",
            "",
            target_table(record["targets"]),
        )
    )


def measurements(rows: Sequence[Row]) -> str:
    """A line a measurement, by backend and batch."""

    def place(row: Row) -> tuple[Any, ...]:
        loss = IMPLEMENTATIONS.index(row["implementation"])
        return BACKENDS.index(row["backend"]), row["batch"], loss, row["step"] != GRADIENT

    head = [
        "backend",
        "batch",
        "loss",
        "step",
        "median",
        "minimum",
        "extra MiB",
        "row/ours",
        "product",
        "6nnd",
        "4nnd",
    ]
    return table(head, [_line(rows, row) for row in sorted(rows, key=place)], left=(0, 2, 3))


def target_table(targets: Sequence[dict[str, Any]]) -> str:
    words = {True: "reached", False: "missed", None: "not measured"}
    lines = [(t["batch"], t["target"], t["bound"], words[t["reached"]], t["text"]) for t in targets]
    head = ("batch", "target", "bound", "", "measured")
    return table(head, lines, left=(0, 1, 2, 3, 4))


def table(head: Sequence[str], lines: Sequence[Sequence[Any]], left: Sequence[int]) -> str:
    """Columns of fixed width; the last cell of a line that ends early runs on."""
    text = [head, *([str(cell) for cell in line] for line in lines)]
    widths = [
        max(len(line[i]) for line in text if i < len(line) - (len(line) < len(head)))
        for i in range(len(head))
    ]

    def joined(line: Sequence[str]) -> str:
        runs_on = len(line) - 1 if len(line) < len(head) else None
        return "  ".join(
            cell.ljust(width) if i in left or i == runs_on else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=False))
        ).rstrip()

    rule = ["-" * width for width in widths]
    return "\n".join(map(joined, [text[0], rule, *text[1:]]))


def _line(rows: Sequence[Row], row: Row) -> tuple[Any, ...]:
    start = (row["backend"], row["batch"], row["implementation"], row["step"])
    if "error" in row:
        return (*start, row["error"])
    slower = over_ours(rows, row)
    reachable = row["product_gflops"] * 1e9 * row["median_seconds"]
    general, own = 6 * row["batch"] ** 2 * DIM, flops(row)
    shares = ("", "")
    if row["step"] == GRADIENT:
        symmetric = f"{own / reachable:.2f}" if own < general else ""
        shares = (f"{general / reachable:.2f}", symmetric)
    return (
        *start,
        seconds(row["median_seconds"]),
        seconds(row["minimum_seconds"]),
        f"{row['extra_bytes'] / MIB:.1f}" if "extra_bytes" in row else "",
        "" if slower is None else f"{slower:.2f}",
        f"{row['product_gflops']:.0f}",
        *shares,
    )
