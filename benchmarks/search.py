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
    if not arguments.vectors.exists():
        _part("torch", "make", arguments.run, arguments.items + 1000, arguments.vectors)
    record: Row = {"benchmark": "search", "items": arguments.items, "own": arguments.own,
                   **machine.describe()}  # fmt: skip
    path = arguments.out / "search.json"
    own: dict[str, list[Row]] = {}
    large: dict[str, list[Row]] = {}
    for _ in range(arguments.rounds):
        for way in ("faiss", *BACKENDS):
            own.setdefault(way, []).append(_part(way, "own", arguments.own))
            large.setdefault(way, []).append(_part(way, "large", arguments.vectors))
    record["own"] = {way: _medians(rows) for way, rows in own.items()}
    record["large"] = {way: _medians(rows) for way, rows in large.items()}
    machine.write(path, record)
    record["engines"] = {
        name: _part("torch", "engine", arguments.vectors, name) for name in arguments.engines
    }
    machine.write(path, record)
    print(report(record))


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
