"""Search: a set in itself and queries in a large index, beside FAISS; engines and codes.

Each way runs in a process of its own, in turn, and the medians of rounds are shown.
"""

import json
import os
import statistics
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from benchmarks import machine, options

HELP = "neighbours, retrieval metrics and indexes at size, beside FAISS"
BACKENDS = ("torch", "jax", "tensorflow")
ENGINES = ("exact", "int8", "binary", "faiss", "milvus")

Row = dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--own", type=int, default=60_000, help="rows searched in themselves")
    parser.add_argument("--items", type=int, default=1_000_000, help="rows of the large index")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement (3)")
    parser.add_argument("--vectors", type=Path, required=True,
                        help=".npy file of embeddings [items + 1000, 128]; made from --run if "
                        "missing")  # fmt: skip
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=ENGINES,
                        help=f"that are measured ({', '.join(ENGINES)})")  # fmt: skip
    parser.add_argument("--run", type=Path, help="run of glyphs whose model embeds distorted ones")
    options.add_out(parser)


def main(arguments: Namespace, parser: ArgumentParser) -> None:
    """Run the command."""
    given = (arguments.own, arguments.items, arguments.rounds, arguments.vectors, arguments.run)
    print(report(run(*given, tuple(arguments.engines), arguments.out)))


def run(
    own: int,
    items: int,
    rounds: int,
    vectors: Path,
    trained: Path | None,
    engines: tuple[str, ...],
    out: Path,
) -> Row:
    """Measure, and write search.json in `out`."""
    if not vectors.exists():
        made = _part("torch", "make", trained, items + 1000, vectors)
        if "error" in made:
            raise SystemExit(f"{vectors} could not be made of the run {trained}.")
    record: Row = {"benchmark": "search", "items": items, "rows": own, **machine.describe()}
    parts: dict[str, dict[str, list[Row]]] = {"own": {}, "large": {}}
    for _ in range(rounds):
        for way in ("faiss", *BACKENDS):
            parts["own"].setdefault(way, []).append(_part(way, "own", own))
            parts["large"].setdefault(way, []).append(_part(way, "large", vectors))
    for name, ways in parts.items():
        record[name] = {way: _medians(rows) for way, rows in ways.items()}
    record["engines"] = {}
    for name in engines:
        machine.write(out / "search.json", record)
        record["engines"][name] = _part("torch", "engine", vectors, name)
    machine.write(out / "search.json", record)
    return record


def _part(way: str, *given: Any) -> Row:
    print(way, *given, file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks.search_parts", way, *map(str, given)]
    environment = {**os.environ, "KERAS_BACKEND": "torch" if way == "faiss" else way}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {"error": f"the process ended with {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def _medians(rows: list[Row]) -> Row:
    good = [row for row in rows if "error" not in row]
    if not good:
        return rows[-1]
    return {name: statistics.median(row[name] for row in good) for name in good[0]}


def report(record: Row) -> str:
    """The tables."""
    lines = ["A set in itself, seconds (and of FAISS flat's):"]
    flat = record["own"]["faiss"]["neighbours_s"]
    for way, row in record["own"].items():
        lines.append(f"  {way:<11} " + "  ".join(
            f"{name} {row[name]:.1f} ({row[name] / flat:.2f})" if name.endswith("_s")
            else f"{name} {row[name]:,.0f}" for name in row))  # fmt: skip
    lines.append("1,000 queries in the large index, seconds (and of FAISS flat's):")
    flat = record["large"]["faiss"]["search_s"]
    for way, row in record["large"].items():
        lines.append(f"  {way:<11} {row['search_s']:.2f} ({row['search_s'] / flat:.2f})")
    lines.append("Engines at defaults, against exact:")
    for name, row in record["engines"].items():
        lines.append("  " + name + "  " + (row.get("error") or "  ".join(
            f"{what} {value:,.4g}" for what, value in row.items())))  # fmt: skip
    return "\n".join(lines)
