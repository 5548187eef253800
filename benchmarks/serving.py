"""`kinfold serve` under load: times of single searches and of many at once, and its memory."""

import asyncio
import io
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, options

HELP = "times and memory of `kinfold serve`, one search after another and many at once"

Row = dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--run", type=Path, required=True, help="run of images that is served")
    parser.add_argument(
        "--items", type=int, nargs="+", default=[1_000, 1_000_000], help="in the index"
    )
    parser.add_argument("--engine", default="exact", help="of the index (exact)")
    parser.add_argument("--at-once", type=int, default=200, help="searches at once (200)")
    parser.add_argument("--rounds", type=int, default=10, help="of searches at once (10)")
    options.add_out(parser)


def main(arguments: Namespace, parser: ArgumentParser) -> None:
    """Run the command."""
    given = (arguments.run, arguments.items, arguments.engine, arguments.at_once, arguments.rounds)
    print(report(run(*given, arguments.out)))


def run(
    trained: Path, sizes: list[int], engine: str, at_once: int, rounds: int, out: Path
) -> dict[str, Any]:
    """Serve a run with indexes of random vectors, and search in them.

    Args:
        trained: the run, of images.
        sizes: how many items the indexes hold.
        engine: of the indexes.
        at_once: how many searches are asked for at once.
        rounds: of these.
        out: the folder of the results.
    """
    rows = []
    for items in sizes:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "run")
            shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("index"))
            write_index(copy, items, engine)
            rows += measured(copy, items, at_once, rounds)
    record = {"machine": machine.describe(), "engine": engine, "rows": rows}
    machine.write(out / "serving.json", record)
    return record


def write_index(run: Path, items: int, engine: str) -> None:
    """An index of random vectors, in a process of its own so that the server has the memory."""
    script = (
        "import sys, numpy as np, kinfold\n"
        "run, items, engine = kinfold.load(sys.argv[1]), int(sys.argv[2]), sys.argv[3]\n"
        "rng = np.random.default_rng(0)\n"
        "index = kinfold.Index('cosine', engine, model=run.identity)\n"
        "x = rng.normal(size=(items, run.model.output_shape[-1])).astype('float32')\n"
        "labels = [f'class {k % 1000}' for k in range(items)]\n"
        "index.add(x, ids=[f'item {k}' for k in range(items)], labels=labels)\n"
        "index.save(run.path / 'index')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(run), str(items), engine], check=True)


def measured(run: Path, items: int, at_once: int, rounds: int) -> list[Row]:
    """Serve a run and search."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kinfold_cli", "serve", str(run), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        return asyncio.run(_asked(found[0], process.pid, items, at_once, rounds))
    finally:
        process.terminate()
        process.wait()


async def _asked(url: str, server: int, items: int, at_once: int, rounds: int) -> list[Row]:
    import httpx2
    from PIL import Image

    rng = np.random.default_rng(1)
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(out, "PNG")
    limits = httpx2.Limits(max_connections=at_once)
    rows: list[Row] = []
    async with httpx2.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        member = {"id": "item 1", "k": 1}
        near = (await client.get("api/v1/items/neighbours", params=member)).json()
        assert near["results"], near
        about = (await client.get("api/v1/about")).json()
        vector = rng.normal(size=(1, about["dimension"])).tolist()

        async def image() -> None:
            answer = await client.post("api/v1/search", files={"images": ("x.png", out.getvalue())})
            assert answer.status_code == 200, answer.text

        async def embedding() -> None:
            answer = await client.post("api/v1/search/vectors", json={"embeddings": vector})
            assert answer.status_code == 200, answer.text

        ways: dict[str, Callable[[], Awaitable[None]]] = {"image": image, "embedding": embedding}
        for name, ask in ways.items():
            for _ in range(5):
                await ask()
            alone = [await _timed(ask) for _ in range(rounds * 10)]
            rows.append({"items": items, "search": name, "at_once": 1, **_summary(alone, server)})
            together: list[float] = []
            await asyncio.gather(*(ask() for _ in range(at_once)))
            before, start = _memory(server), time.perf_counter()
            for _ in range(rounds):
                together += await asyncio.gather(*(_timed(ask) for _ in range(at_once)))
            seconds = time.perf_counter() - start
            rows.append(
                {
                    "items": items,
                    "search": name,
                    "at_once": at_once,
                    **_summary(together, server),
                    "per_second": len(together) / seconds,
                    "memory_before": before,
                }
            )
    return rows


async def _timed(ask: Callable[[], Awaitable[None]]) -> float:
    start = time.perf_counter()
    await ask()
    return time.perf_counter() - start


def _summary(seconds: list[float], server: int) -> Row:
    p50, p99 = np.percentile(seconds, [50, 99]).tolist()
    return {"searches": len(seconds), "p50": p50, "p99": p99, "memory": _memory(server)}


def _memory(process: int) -> float | None:
    """MiB that a process holds; None where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * resource.getpagesize() / 2**20


def report(record: dict[str, Any]) -> str:
    """A table."""
    rows = record["rows"]
    lines = [f"{os.cpu_count()} cores; every search was answered.", ""]
    lines += ["| items | search | at once | p50 | p99 | per second | MiB |", "|" + 7 * "---|"]
    for row in rows:
        rate = f"{row['per_second']:.0f}" if "per_second" in row else ""
        before = row.get("memory_before")
        held = "" if row["memory"] is None else f"{row['memory']:.0f}"
        held = f"{before:.0f} to {held}" if before else held
        lines.append(
            f"| {row['items']:,} | {row['search']} | {row['at_once']} | {1e3 * row['p50']:.0f} ms "
            f"| {1e3 * row['p99']:.0f} ms | {rate} | {held} |"
        )
    return "\n".join(lines)
