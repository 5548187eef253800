"""`kinfold train` with no options on six kinds of data: raw input, before, after, and a peer.

The peer is the example of pytorch-metric-learning, with the same network and as many steps. Both
are measured on classes that neither has seen, the same ones.
"""

import json
import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, options
from benchmarks.tables import table

HELP = "`kinfold train` with no options on six kinds of data, beside the raw input and a peer"
SEEDS = 3
ROWS = ("raw", "untrained", "trained", "peer")
METRICS = ("map@r", "recall@1")

Row = dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"runs of each ({SEEDS})")
    parser.add_argument("--fonts", type=Path, required=True, help="a folder of .ttf and .otf files")
    parser.add_argument(
        "--icons", type=Path, required=True, help="a font of icons; npm has one as @mdi/font"
    )
    parser.add_argument("--data", type=Path, help="where the data is made, and found again")
    parser.add_argument("--only", help="comma-separated kinds; all otherwise")
    options.add_out(parser)


def main(arguments: Namespace, parser: ArgumentParser) -> None:
    """Run the command; `parser` tells what is wrong with the options."""
    os.environ["KERAS_BACKEND"] = "torch"  # of both; before the first import of Keras
    from benchmarks import kinds_data

    makers = kinds_data.makers(arguments.fonts, arguments.icons)
    chosen = arguments.only.split(",") if arguments.only else list(makers)
    if unknown := set(chosen) - set(makers):
        parser.error(f"unknown kind {sorted(unknown)[0]!r}; known: {', '.join(makers)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.data or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        made = {name: _made(folder, name, makers[name]) for name in chosen}
        print(report(run(made, range(arguments.seeds), arguments.out)))


def _made(folder: Path, name: str, maker: Any) -> str:
    """What `kinfold train` is given; made once in a folder."""
    kept = folder / f"{name}.json"
    if not kept.exists():
        print(f"making {name}", file=sys.stderr, flush=True)
        kept.write_text(json.dumps(maker(folder)), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def run(data: dict[str, str], seeds: range, out: Path) -> Row:
    """Train what is left, and write kinds.json after each training."""
    path = out / "kinds.json"
    rows = machine.rows_in(path)
    record: Row = {"benchmark": "kinds", **machine.describe(), "rows": rows}
    jobs = ({"data": name, "seed": seed} for seed in seeds for name in data)
    for job in machine.left(jobs, rows):
        rows.append({**job, **_trained(data[job["data"]], job["seed"])})
        machine.write(path, record)
    return record


def _trained(data: str, seed: int) -> Row:
    """The metrics of a run and of the peer on its test classes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        ours = ["kinfold_cli", "train", data, "--out", str(out), "--seed", str(seed)]
        subprocess.run([sys.executable, "-m", *ours], stdout=sys.stderr, check=True)
        peer = [sys.executable, "-m", "benchmarks.kinds_peer", str(out)]
        said = subprocess.run(peer, stdout=subprocess.PIPE, text=True, check=True).stdout
        found = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    found["raw"] = found.get("pixels", found.get("raw"))
    found["peer"] = json.loads(said.splitlines()[-1])
    kept = {row: {metric: found[row][metric] for metric in METRICS} for row in ROWS}
    return {**kept, "best": found["best"], "counts": found["counts"]}


def report(record: Row) -> str:
    """Means over the seeds and how far they spread, and whether ours are above raw and peer."""
    lines = []
    for name in dict.fromkeys(row["data"] for row in record["rows"]):
        of_kind = [row for row in record["rows"] if row["data"] == name]
        for metric in METRICS:
            values = {row: np.array([one[row][metric] for one in of_kind]) for row in ROWS}
            cells = [f"{v.mean():.3f} ({np.ptp(v):.3f})" for v in values.values()]
            ours = values["trained"].mean()
            above = [f"{ours - values[row].mean():+.3f}" for row in ("raw", "peer")]
            lines.append((name, metric, len(of_kind), *cells, *above))
    head = ("data", "metric", "seeds", *ROWS, "above raw", "above peer")
    return "\n".join((
        "kinfold train DATA, unseen classes: mean (largest less smallest); "
        f"{record['device']['cpu']}; {record['date']}",
        "",
        table(head, lines, left=(0, 1)),
    ))  # fmt: skip
