"""Measures the GPU benchmark's jobs, each in a process: `python -m benchmarks.gpu_run JOB`."""

import json
import os
import statistics
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks import gpu, machine, measure, options
from benchmarks.tables import table
from benchmarks.targets import MIB, seconds

ROOT = Path(__file__).resolve().parent.parent
HELP = "the fused kernels and their peers, on a GPU"
NEEDS = "`python -m benchmarks gpu` needs an NVIDIA GPU that PyTorch sees, and there is none here."
LIMIT = 600  # seconds a job may take
BUDGET = 3.0  # seconds spent on the repeats of a step
ONCE = 10.0  # a step that takes longer is timed once
CHECKED = 16384  # the largest batch whose gradient is compared with float64
TITLES = {gpu.CIRCLE: "Circle", gpu.INFO_NCE: "InfoNCE"}
Row = dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--quick", action="store_true", help="d = 512 and three batches only")
    options.add_out(parser)


def main(arguments: Namespace, parser: ArgumentParser) -> None:
    """Run the command; `parser` tells what is wrong with the options."""
    print(report(run(arguments.quick, arguments.out)))


def run(quick: bool, out: Path) -> dict[str, Any]:
    """Measure all jobs; gpu.json in `out` is written after each."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit(NEEDS)
    properties = torch.cuda.get_device_properties(0)
    record: dict[str, Any] = {"benchmark": "gpu", **machine.describe()}
    record["device"] |= {"gpu": properties.name, "gpu_memory_gib": properties.total_memory / 2**30}
    record["rows"] = []
    jobs = list(gpu.jobs(quick, properties.total_memory))
    start = perf_counter()
    for number, job in enumerate(jobs, 1):
        record["rows"].append({**job, "error": job["skip"]} if "skip" in job else in_process(job))
        print(
            f"[{perf_counter() - start:4.0f} s] {number}/{len(jobs)} {line(record['rows'][-1])}",
            file=sys.stderr,
            flush=True,
        )
        record["targets"] = targets(record["rows"])
        machine.write(out / "gpu.json", record)
    return record


def in_process(job: Row) -> Row:
    """Measure a job in a fresh process; what ends the process becomes the row's error."""
    command = [sys.executable, "-m", "benchmarks.gpu_run", json.dumps(job)]
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return {**job, "error": f"over {LIMIT} s"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return {**job, "error": f"exit {done.returncode}: {last[:120]}"}


def measured(job: Row, budget: float = BUDGET) -> Row:
    """Seconds and bytes of a step with gradient and of one without, and what the chip can do."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision(job["precision"])
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

        row = {**job, **weighed(gradient, device), "seconds": timed(gradient, device, budget)}
        row["evaluation_seconds"] = timed(evaluation, device, budget)
        if job["batch"] <= CHECKED:
            expected = gpu.exact(job)
            got = sides[0].grad[: len(expected)].double().cpu().numpy()
            row["gradient_error"] = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    except Exception as error:
        return {**job, "error": measure.reason(error)}
    row["tflops"] = rate(job["dtype"], device, budget / 3)
    row["share"] = gpu.flops(job) / row["seconds"] / row["tflops"] / 1e12
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

    first = once()
    if first > ONCE:
        return first
    times, end = [once()], perf_counter() + budget
    while (len(times) < 3 or perf_counter() < end) and len(times) < 200:
        times.append(once())
    return statistics.median(times)


def rate(dtype: str, device: str, budget: float) -> float:
    """TFLOP/s of a square matrix product of random numbers, in this dtype and precision."""
    import torch

    size = 8192 if device == "cuda" else 256
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    return 2 * size**3 / timed(lambda: a @ b, device, budget) / 1e12


def find(rows: Sequence[Row], loss: str, name: str, batch: int, dtype: str) -> Row | None:
    """The measurement at d = 512, or None where there is none or it failed."""
    wanted = {"loss": loss, "implementation": name, "batch": batch, "dtype": dtype, "dim": 512}
    for row in rows:
        if all(row.get(key) == value for key, value in wanted.items()) and "error" not in row:
            return row
    return None


def targets(rows: Sequence[Row]) -> list[Row]:
    """Each target with its figure; `reached` is None where something was not measured."""
    large = find(rows, gpu.CIRCLE, gpu.FUSED, 131072, "bfloat16")
    out = [entry("131072", "share of the matrix rate", 0.45, large and large["share"])]
    for dtype in gpu.DTYPES:
        ours = find(rows, gpu.CIRCLE, gpu.FUSED, 16384, dtype)
        for name, least in ((gpu.COMPILED, 3.0), (gpu.EAGER, 10.0)):
            peer = find(rows, gpu.CIRCLE, name, 16384, dtype)
            figure = peer["seconds"] / ours["seconds"] if ours and peer else None
            out.append(entry("16384", f"times faster than {name}, {dtype}", least, figure))
    most = find(rows, gpu.CIRCLE, gpu.FUSED, 1048576, "bfloat16")
    out.append(entry("1048576", "seconds a step", -20.0, most and most["seconds"]))
    out.append(entry("1048576", "GiB at the peak", -8.0, most and most["peak_bytes"] / 2**30))
    for dtype in gpu.DTYPES:
        beside = both(rows, gpu.INFO_NCE, gpu.INF_CL, dtype)
        faster = [peer["seconds"] / ours["seconds"] for ours, peer in beside]
        what = f"times faster than {gpu.INF_CL}, worst size, {dtype}"
        out.append(entry("InfoNCE", what, 1.3, min(faster, default=None)))
        for loss, name in ((gpu.INFO_NCE, gpu.INF_CL), (gpu.CIRCLE, gpu.EAGER)):
            ratios = [
                ours["gradient_error"] / peer["gradient_error"]
                for ours, peer in both(rows, loss, name, dtype)
                if "gradient_error" in ours and "gradient_error" in peer
            ]
            what = f"gradient's error over {name}'s, worst size, {dtype}"
            out.append(entry(TITLES[loss], what, -1.0, max(ratios, default=None)))
    return out


def both(rows: Sequence[Row], loss: str, name: str, dtype: str) -> list[tuple[Row, Row]]:
    """Ours fused and a peer's, of each batch where both were measured."""
    found = (
        (find(rows, loss, gpu.FUSED, batch, dtype), find(rows, loss, name, batch, dtype))
        for batch in gpu.BATCHES
    )
    return [(ours, peer) for ours, peer in found if ours and peer]


def entry(batch: str, what: str, bound: float, figure: float | None) -> Row:
    """A target of at least `bound`, or of at most -`bound` where that is negative."""
    reached = None
    if figure is not None:
        reached = figure >= bound if bound > 0 else figure <= -bound
    sign = ">=" if bound > 0 else "<="
    text = "" if figure is None else f"{figure:.3g}"
    shown = f"{sign} {abs(bound):g}"
    return {"batch": batch, "target": what, "bound": shown, "text": text, "reached": reached}


def line(row: Row) -> str:
    what = f"{row['loss']}, {row['implementation']}, {row['batch']} x {row['dim']}, {row['dtype']}"
    return f"{what}: {row['error'] if 'error' in row else seconds(row['seconds'])}"


def report(record: dict[str, Any]) -> str:
    """Everything that the terminal shows."""
    device = record["device"]
    head = ("loss", "batch", "d", "dtype", "", "step", "forward", "MiB", "share", "gradient error")
    lines = []
    for row in record["rows"]:
        start = (row["loss"], row["batch"], row["dim"], row["dtype"], row["implementation"])
        if "error" in row:
            lines.append((*start, row["error"]))
            continue
        error = row.get("gradient_error")
        lines.append(
            (
                *start,
                seconds(row["seconds"]),
                seconds(row["evaluation_seconds"]),
                f"{row['extra_bytes'] / MIB:.0f}",
                f"{row['share']:.2f}",
                "" if error is None else f"{error:.1e}",
            )
        )
    words = {True: "reached", False: "missed", None: "not measured"}
    goals = [
        (t["batch"], t["target"], t["bound"], words[t["reached"]], t["text"])
        for t in record["targets"]
    ]
    return "\n".join(
        (
            f"{device.get('gpu', device['cpu'])}; share: 6 n n d operations over the step's time, "
            "of the rate of a matrix product in that precision",
            "",
            table(head, lines, left=(0, 3, 4)),
            "",
            table(("batch", "target", "bound", "", "measured"), goals, left=(0, 1, 2, 3, 4)),
        )
    )


if __name__ == "__main__":
    print(json.dumps(measured(json.loads(sys.argv[1]))))
