"""Data of real size: what a run on many image files needs, and how fast they are decoded.

The files are made here: JPEG of 256 x 256 pixels, twenty of each class.
"""

import json
import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from benchmarks import data_parts, machine, options

HELP = "memory, first step, decoding, waiting and kills of a run on many image files"
FILES, ROWS, KILLS = 200_000, 1_000_000, 20
MIB = 2**20

Row = dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--files", type=int, default=FILES, help=f"images ({FILES})")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"of the listing ({ROWS})")
    parser.add_argument("--kills", type=int, default=KILLS, help=f"of a run ({KILLS})")
    parser.add_argument("--photos", type=Path, help="folder for the images, which are kept there")
    parser.add_argument("--backend", default="jax", help="that the run trains on (jax)")
    options.add_out(parser)


def main(arguments: Namespace, parser: ArgumentParser) -> None:
    """Run the command."""
    given = (arguments.files, arguments.rows, arguments.kills, arguments.photos, arguments.backend)
    print(report(run(*given, arguments.out)))


def run(files: int, rows: int, kills: int, photos: Path | None, backend: str, out: Path) -> Row:
    """Measure, and write data.json in `out`."""
    with tempfile.TemporaryDirectory() as folder:
        photos = photos or Path(folder, "photos")
        data_parts.make_images(photos, files)
        parts: dict[str, tuple[Any, ...]] = {
            "decoding": (photos, min(files, 6000)),
            "waiting": (photos, min(files, 6000)),
            "listing": (Path(folder, "list.csv"), rows),
            "run": (photos, Path(folder, "run")),
            "kills": (Path(folder, "killed"), kills),
        }
        record = {"benchmark": "data", "backend": backend, "files": files, **machine.describe()}
        for name, given in parts.items():
            record[name] = _measured(name, backend, *given)
            machine.write(out / "data.json", record)
    return record


def _measured(name: str, backend: str, *given: Any) -> Row:
    """What a part measures in a process of its own."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks.data_parts", name, *map(str, given)]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {"error": f"the process ended with {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def report(record: Row) -> str:
    """The measured numbers beside what they are meant to be."""
    found = {name: record[name] for name in ("run", "decoding", "waiting", "kills", "listing")}
    lines = [f"{record['files']:,} files, {record['backend']}"]
    for name, row in found.items():
        if "error" in row:
            lines.append(f"{name}: {row['error']}")
    run, decoding, waiting = found["run"], found["decoding"], found["waiting"]
    if "error" not in run:
        lines += [
            f"memory beyond the libraries: {run['peak_mib']:,.0f} MiB (under 1,536)",
            f"run folder: {run['folder_mib']:.1f} MiB (under 100)",
            f"first step after the scan: {run['first_step_s']:.1f} s (under 30); "
            f"the scan took {run['scan_s']:.1f} s, the run {run['whole_s']:.0f} s",
        ]
    if "error" not in decoding:
        ours, bare, loader = (decoding[name] for name in ("ours", "threads", "data_loader"))
        lines.append(
            f"decoding, images a second: {ours:.0f}; bare Pillow threads {bare:.0f} "
            f"({ours / bare:.2f}, at least 0.9); torch's DataLoader {loader:.0f} "
            f"({ours / loader:.2f}, at least 1); Grain's threads {decoding['grain_threads']:.0f}"
        )
    if "error" not in waiting:
        lines.append(f"waiting for data: {100 * waiting['share']:.1f}% of the time (under 5%)")
    if "error" not in found["kills"]:
        kills = found["kills"]
        same = "the same bit for bit" if kills["same"] else "NOT the same"
        lines.append(f"killed {kills['kills']} times within epochs: weights {same}")
    if "error" not in found["listing"]:
        row = found["listing"]
        lines.append(
            f"a listing of {row['rows']:,} rows: {row['seconds']:.1f} s (under 60), "
            f"{row['mib']:.0f} MiB (under 500)"
        )
    return "\n".join(lines)
