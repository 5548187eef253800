"""Runs the GPU benchmark: what is worth most first, its JSON written after each figure."""

import gc
import json
import os
import statistics
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import gpu, gpu_checks, gpu_more, gpu_report, machine, measure, options
from benchmarks.gpu_report import report

ROOT = Path(__file__).resolve().parent.parent
HELP = "the fused kernels and their peers, on a GPU"
NEEDS = "`python -m benchmarks gpu` needs an NVIDIA GPU that PyTorch sees, and there is none here."
CHECKERS = 12  # processes that check the kernels at once: what takes time is to compile them
BUDGET = 1.0  # seconds spent on the repeats of a step
ONCE = 5.0  # a step that takes longer is timed once
CHECKED = 16384  # the largest batch whose gradient is compared with float64
Row = dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--rehearse", action="store_true", help="tiny sizes in the interpreter, without a GPU"
    )
    parser.add_argument("--seconds", type=float, default=480.0, help="no job begins later")
    options.add_out(parser)


def main(arguments: Namespace, parser: ArgumentParser) -> None:
    """Run the command; `parser` tells what is wrong with the options."""
    print(report(run(arguments.rehearse, arguments.seconds, arguments.out)))


def run(rehearse: bool, limit: float, out: Path, checks: bool = True) -> dict[str, Any]:
    """Measure all; gpu.json in `out` is written after each figure."""
    os.environ["KERAS_BACKEND"] = "torch"
    if rehearse:
        os.environ["TRITON_INTERPRET"] = "1"
    import torch

    if not (rehearse or torch.cuda.is_available()):
        raise SystemExit(NEEDS)
    start = perf_counter()
    record: dict[str, Any] = {"benchmark": "gpu", **machine.describe()}
    record |= {"rehearsal": rehearse, "rates": {}, "checks": [], "trial": []}
    record |= {"rows": [], "more": []}
    if not rehearse:
        properties = torch.cuda.get_device_properties(0)
        memory = {"gpu_memory_gib": properties.total_memory / 2**30}
        record["device"] |= {"gpu": properties.name, **memory}

    def told(what: str) -> None:
        print(f"[{perf_counter() - start:4.0f} s] {what}", file=sys.stderr, flush=True)
        record["seconds"] = perf_counter() - start
        machine.write(out / "gpu.json", record)

    record["rates"] = rates("cpu" if rehearse else "cuda")
    told(f"rates: {record['rates']}")
    parts = [] if rehearse or not checks else checkers()
    for part in parts:
        record["checks"] += [json.loads(line) for line in part.communicate()[0].splitlines()]
    wrong = [check for check in record["checks"] if not check["right"]]
    told(f"{len(record['checks'])} checks, {len(wrong)} wrong: {wrong[:5]}")
    if parts:
        record["trial"] = list(gpu_checks.verdicts())
        told(f"trial: {[row for row in record['trial'] if row['refused']]}")
    for job in gpu.jobs():
        if perf_counter() - start > limit:
            row = {**job, "error": "no time was left"}
        else:
            row = measured(smaller(job) if rehearse else job, record["rates"])
        record["rows"].append(row)
        told(gpu_report.line(row))
        record["targets"] = gpu_report.targets(record["rows"])
    for row in in_jax(rehearse):
        record["rows"].append(row)
        told(gpu_report.line(row))
    for row in gpu_more.rows(rehearse):
        record["more"].append(row)
        told(str(row))
    record["targets"] = gpu_report.targets(record["rows"])
    return record


def in_jax(rehearse: bool) -> Iterator[Row]:
    """Each measurement of JAX, in a process of its own."""
    sizes = ("64",) if rehearse else ("4096", "16384", "131072")
    command = [sys.executable, "-m", "benchmarks.gpu_jax", *sizes]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout or ():
            yield json.loads(line)


def checkers() -> list[Any]:
    command = [sys.executable, "-m", "benchmarks.gpu_checks"]
    return [
        subprocess.Popen(
            [*command, str(part), str(CHECKERS)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for part in range(CHECKERS)
    ]


def smaller(job: Row) -> Row:
    """For a rehearsal: as much as the interpreter does in seconds."""
    return {**job, "batch": 40, "dim": min(job["dim"], 64)}


def measured(job: Row, rates: Row, budget: float = BUDGET) -> Row:
    """Seconds and bytes of a step with gradient, and of one without."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(gpu.PRECISION[job["loss"]])
    row = dict(job)
    try:
        y, sides = gpu.inputs(job, device)
        forward = gpu.step(job, y, sides)

        def gradient() -> None:
            for side in sides:
                side.grad = None
            forward().backward()

        def evaluation() -> None:
            with torch.no_grad():
                forward()

        row |= {**weighed(gradient, device), "seconds": timed(gradient, device, budget)}
        row["tflops"] = gpu.flops(job) / row["seconds"] / 1e12
        if job["batch"] <= 131072:
            row["evaluation_seconds"] = timed(evaluation, device, budget / 3)
        if job["batch"] <= CHECKED or job["loss"] == gpu.SIG_LIP:
            expected = gpu.exact(job)
            got = sides[0].grad[: len(expected)].double()
            row["gradient_error"] = float((got - expected).norm() / expected.norm())
    except Exception as error:
        row["error"] = measure.reason(error)
    finally:
        torch.set_float32_matmul_precision(before)
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    return row


def weighed(run: Callable[[], Any], device: str) -> Row:
    """Bytes at the peak of the second run, in all and beyond what was held before it."""
    import torch

    start = perf_counter()
    run()  # compiles
    row = {"first_seconds": perf_counter() - start, "peak_bytes": 0, "extra_bytes": 0}
    if device == "cuda":
        torch.cuda.synchronize()
        row["first_seconds"] = perf_counter() - start
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        row["peak_bytes"] = torch.cuda.max_memory_allocated()
        row["extra_bytes"] = row["peak_bytes"] - before
    return row


def timed(run: Callable[[], Any], device: str, budget: float) -> float:
    """Median seconds of a run, by the device's own clock."""
    import torch

    def once() -> float:
        if device == "cpu":
            start = perf_counter()
            run()
            return perf_counter() - start
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        events[0].record()
        run()
        events[1].record()
        torch.cuda.synchronize()
        return events[0].elapsed_time(events[1]) / 1000

    times, end = [once()], perf_counter() + budget
    while times[0] < ONCE and (len(times) < 3 or perf_counter() < end) and len(times) < 200:
        times.append(once())
    return statistics.median(times)


def rates(device: str) -> Row:
    """What the chip does: a square product of random numbers, TFLOP/s, and a copy, TB/s."""
    import torch

    size, count = (8192, 2**30) if device == "cuda" else (256, 2**20)
    found: Row = {}
    for dtype in ("bfloat16", "float32"):
        a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in "ab")
        seconds = timed(lambda a=a, b=b: a @ b, device, BUDGET / 2)
        found[dtype] = 2 * size**3 / seconds / 1e12
    source = torch.randn(count // 4, device=device)
    target = torch.empty_like(source)
    found["copy"] = 2 * count / timed(lambda: target.copy_(source), device, BUDGET / 4) / 1e12
    return found
