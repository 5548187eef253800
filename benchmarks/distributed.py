"""What a rank computes, sends and holds, where several processes share a batch.

PyTorch processes on one machine, which talk by gloo. Multiply-adds are counted by PyTorch as it
runs them. Bytes are those that the loopback device carried, of all ranks, over ranks and steps.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, options
from benchmarks.targets import MIB

HELP = "multiply-adds, bytes and memory of a rank, of several processes"
WORLDS, BATCH, LARGE, DIM = (1, 2, 4), 4096, 65536, 128
CLASSES, OF_CLASSES = 1_000_000, 256
LOSSES = ("CircleLoss", "SupConLoss", "TripletLoss", "PairContrastiveLoss", "InfoNCELoss")
STEPS = 3
LIMIT = 3600  # seconds that a group of processes may take

# Of the model of many GPUs. A GPU's rate comes from the kernels on an H200 in results/gpu.json
# (sums 421, derivatives 277, products 640 TFLOP/s, of 2, 2 and 4 operations); the rest is assumed.
PER_GPU, GPU_DIM, BYTES, FLOPS, BANDWIDTH, LATENCY = 1024, 512, 2, 330e12, 25e9, 20e-6

Row = dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--batch", type=int, default=BATCH, help=f"of all ranks ({BATCH})")
    parser.add_argument("--large", type=int, default=LARGE, help=f"for memory ({LARGE})")
    parser.add_argument("--classes", type=int, default=CLASSES, help=f"sharded ({CLASSES})")
    options.add_out(parser)


def main(arguments: Namespace, parser: ArgumentParser) -> None:
    """Run the command."""
    record = run(arguments.batch, arguments.large, arguments.classes, arguments.out)
    print(report(record))


def run(batch: int, large: int, classes: int, out: Path) -> Row:
    """Measure, and write distributed.json in `out`."""
    record = {
        "benchmark": "distributed",
        **machine.describe(),
        "rows": [row for world in WORLDS for row in _group("steps", world, batch)],
        "memory": [row for world in (1, 4) for row in _group("memory", world, large)],
        "classes": [row for world in (1, 4) for row in _group("classes", world, classes)],
    }
    machine.write(out / "distributed.json", record)
    return record


def _group(what: str, world: int, size: int) -> list[Row]:
    """What rank 0 of a group of processes measured."""
    print(f"{what}: {world} ranks, {size:,}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.distributed", what, str(world), str(size)]
        environment = {**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
        ranks = [
            subprocess.Popen([*command, str(rank), folder], env=environment)
            for rank in range(world)
        ]
        try:
            codes = [rank.wait(timeout=LIMIT) for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        if any(codes):
            raise SystemExit(f"{what} on {world} ranks: they ended with {codes}.")
        return json.loads((Path(folder) / "rows.json").read_text(encoding="utf-8"))


def _rank(what: str, world: int, size: int, rank: int, folder: Path) -> None:
    """One process of a group."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=world
    )
    rows = {"steps": _steps, "memory": _memory, "classes": _classes}[what](world, size, rank)
    if rank == 0:
        (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def _data(size: int, world: int, rank: int) -> tuple[Any, Any]:
    """Labels, classes of four, and embeddings of unit norm: a rank's rows."""
    import torch

    rng = np.random.default_rng(rank)
    x = rng.normal(size=(size // world, DIM)).astype("float32")
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = (np.arange(size) // 4)[rank * len(x) : (rank + 1) * len(x)]
    return torch.tensor(y), torch.tensor(x, requires_grad=True)


def _steps(world: int, size: int, rank: int) -> list[Row]:
    import torch
    import torch.distributed as dist
    from torch.utils.flop_counter import FlopCounterMode

    from kinfold import losses

    def in_place(c: Any, a: Any, b: Any, *_: Any, **__: Any) -> int:  # which it does not know
        return 2 * a[0] * a[1] * b[1]

    known = {torch.ops.aten.addmm_: in_place}
    y, x = _data(size, world, rank)
    r = _data(size, world, rank + world)[1]
    rows = []
    for name in LOSSES:
        loss = getattr(losses, name)()
        references = {"ref_embeddings": r} if name == "InfoNCELoss" else {}

        def step(loss: Any = loss, references: Any = references) -> None:
            x.grad = r.grad = None
            loss(y, x, **references).backward()

        step()
        with FlopCounterMode(display=False, custom_mapping=known) as counter:
            step()
        dist.barrier()
        sent, start = _carried(), time.perf_counter()
        for _ in range(STEPS):
            step()
        dist.barrier()
        rows.append(
            {
                "loss": name,
                "world": world,
                "batch": size,
                "multiply_adds": counter.get_total_flops() // 2,
                "bytes": (_carried() - sent) / STEPS / world,
                "seconds": (time.perf_counter() - start) / STEPS,
            }
        )
    return rows


def _carried() -> int:
    """Bytes that the loopback device has sent."""
    lines = Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[9]) for line in lines if line.strip().startswith("lo:"))


def _peak(step: Callable[[], Any]) -> float:
    """MiB that a step takes beyond what was resident before it."""
    before = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    before *= resource.getpagesize()
    step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / MIB


def _memory(world: int, size: int, rank: int) -> list[Row]:
    from kinfold import losses

    loss, (y, x) = losses.CircleLoss(), _data(size, world, rank)
    loss(y[:64], x[:64]).backward()  # what loads with the first step
    x.grad, start = None, time.perf_counter()
    extra = _peak(lambda: loss(y, x).backward())
    row = {"loss": "CircleLoss", "world": world, "batch": size, "mib": extra}
    return [{**row, "seconds": time.perf_counter() - start}]


def _classes(world: int, count: int, rank: int) -> list[Row]:
    from kinfold import losses

    y, x = _data(OF_CLASSES, world, rank)
    loss = losses.ArcFaceLoss(count, DIM, shard_classes=True)
    loss(y, x).backward()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
    held = loss.prototypes.shape[0] * DIM * 4 / MIB
    start = time.perf_counter()
    loss(y, x).backward()
    seconds = time.perf_counter() - start
    return [
        {"world": world, "classes": count, "held": held, "resident": resident, "seconds": seconds}
    ]


def report(record: Row) -> str:
    """Everything that the terminal shows."""
    alone = {row["loss"]: row for row in record["rows"] if row["world"] == 1}
    lines = [
        f"Global batch {record['rows'][0]['batch']:,} x {DIM}, float32; a rank's own, of one step.",
        "share: its multiply-adds over those of one process.",
        "sent: bytes over (world - 1) / world * n * (2 d + 2) * 4.",
        "",
        f"{'loss':<22}{'ranks':>6}{'multiply-adds':>16}{'share':>8}{'MB':>8}{'sent':>7}{'s':>8}",
    ]
    for row in record["rows"]:
        world, share = row["world"], row["multiply_adds"] / alone[row["loss"]]["multiply_adds"]
        once = (world - 1) / world * row["batch"] * (2 * DIM + 2) * 4
        sides = 2 if row["loss"] == "InfoNCELoss" else 1
        sent = f"{row['bytes'] / once / sides:.2f}" if once else ""
        lines.append(
            f"{row['loss']:<22}{world:>6}{row['multiply_adds']:>16,}{share:>8.3f}"
            f"{row['bytes'] / 1e6:>8.2f}{sent:>7}{row['seconds']:>8.2f}"
        )
    lines += ["", "InfoNCE sends both sides of its pairs, and counts as two.", ""]
    for row in record["memory"]:
        lines.append(
            f"{row['loss']}, {row['batch']:,} x {DIM}, {row['world']} ranks: "
            f"{row['mib']:.0f} MiB beyond a rank's own rows, {row['seconds']:.1f} s"
        )
    lines.append("")
    for row in record["classes"]:
        lines.append(
            f"ArcFaceLoss(shard_classes=True), {row['classes']:,} classes, {row['world']} ranks: "
            f"{row['held']:.0f} MiB of prototypes a rank, {row['resident']:.0f} MiB resident, "
            f"{row['seconds']:.2f} s"
        )
    return "\n".join([*lines, "", *modelled()])


def modelled() -> list[str]:
    """The step of many GPUs: six operations per pair and dimension, at the rates above."""
    lines = [
        f"A model, not a measurement: {PER_GPU} anchors a GPU, d = {GPU_DIM} in bfloat16, "
        f"{FLOPS / 1e12:.0f} TFLOP/s, {BANDWIDTH / 1e9:.0f} GB/s between GPUs, "
        f"{LATENCY * 1e6:.0f} us a message.",
        f"{'GPUs':>6}{'batch':>12}{'computes, ms':>14}{'sends, ms':>11}{'step, ms':>10}",
    ]
    for gpus in (1, 8, 64, 1024):
        n = PER_GPU * gpus
        computes = 6 * PER_GPU * n * GPU_DIM / FLOPS
        bytes_ = n * (2 * GPU_DIM + 2) * BYTES
        sends = (gpus - 1) / gpus * bytes_ / BANDWIDTH + LATENCY * (gpus > 1) * 4
        step = (computes + sends) * 1e3
        lines.append(f"{gpus:>6}{n:>12,}{computes * 1e3:>14.3f}{sends * 1e3:>11.3f}{step:>10.3f}")
    return lines


if __name__ == "__main__":
    _rank(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5]))  # type: ignore[call-arg]
