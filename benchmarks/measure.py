"""Time and memory of one job, in a process of its own: `python -m benchmarks.measure JOB`."""

import contextlib
import ctypes
import gc
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import catalogue, losses
from benchmarks.steps import Step

ROOT = Path(__file__).resolve().parent.parent

LIMIT = 120  # seconds a step may take
ONCE = 20.0  # a step that takes longer is timed by its first run alone
LONG = 5.0  # rounds that take longer are three
BUDGET = 1.5  # seconds spent on the repeats of a step
WARM = 1024  # the batch of the first step, which starts up what a process starts once
ROUND = 0.02  # seconds of calls that are timed together, where steps are short


def in_process(job: dict[str, Any], budget: float | None = None) -> list[dict[str, Any]]:
    """Measure the steps of a job here, with KERAS_BACKEND set to its backend.

    Args:
        job: as of `losses.jobs`; with a "loss" the steps are of that loss of the catalogue.
        budget: seconds spent on the repeats of a step; None means the job's own, or `BUDGET`.

    Returns:
        A row a step: median and minimum seconds, `extra_bytes` at the peak of the first, the rate
        of a matrix product in this process, and `to_first`, the step's time over that of the first.
    """
    batch, rows = job["batch"], unmeasured(job)
    if budget is None:
        budget = job.get("budget", BUDGET)
    runs: list[tuple[dict[str, Any], Step]] = []
    for row in rows:
        try:
            # Thread pools and compilers start up here, and so count neither as time nor memory.
            step(row, min(batch, WARM))()
            run = step(row, batch)
            extra, row["first_seconds"] = weighed(run)
            if row is rows[0]:
                row["extra_bytes"] = extra
            runs.append((row, run))
        except Exception as error:
            row["error"] = reason(error)
    if not runs or not job["time"]:
        return rows
    times = rounds([(run, row["first_seconds"]) for row, run in runs], budget)
    for (row, _), seconds in zip(runs, times, strict=True):
        row["median_seconds"] = statistics.median(seconds)
        row["minimum_seconds"] = min(seconds)
        row["rounds"] = len(seconds)
        if len(runs) > 1 and runs[0][0] is rows[0]:
            pairs = zip(seconds, times[0], strict=True)
            row["to_first"] = statistics.median(own / first for own, first in pairs)
    product = rate(job["backend"], budget / 4)
    for row, _ in runs:
        row["product_gflops"] = product
    return rows


def unmeasured(job: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a step of a job, with what it is to measure."""
    what = {name: job[name] for name in ("loss", "backend", "batch") if name in job}
    return [{"implementation": name, **what, "step": kind} for name, kind in job["steps"]]


def step(row: dict[str, Any], batch: int) -> Step:
    """The step that a row measures, at a batch."""
    if "loss" in row:
        return catalogue.step(row["backend"], row["loss"], row["implementation"], batch)
    return losses.step(row["backend"], row["implementation"], batch, row["step"])


def weighed(run: Step) -> tuple[int, float]:
    """Bytes that a run needs at its peak beyond what was held before the first, and its seconds.

    The second run is weighed, so that no compiler's memory counts (TensorFlow compiles in the
    first), but what the first has kept does.
    """
    before = reset_peak()
    timed(run)
    reset_peak()
    seconds = timed(run)
    # The kernel counts a thread's last few pages late, so that a run of nothing may seem to give.
    return max(peak() - before, 0), seconds


def timed(run: Step, calls: int = 1) -> float:
    """Seconds a call; the process ends by SIGALRM where the calls exceed the limit."""
    signal.alarm(LIMIT)
    try:
        start = perf_counter()
        for _ in range(calls):
            run()
        return (perf_counter() - start) / calls
    finally:
        signal.alarm(0)


def rounds(runs: list[tuple[Step, float]], budget: float) -> list[list[float]]:
    """Seconds a call of each step, in rounds that run them one after the other."""
    if max(first for _, first in runs) > ONCE:
        return [[first] for _, first in runs]
    calls = [
        max(1, round(ROUND / (first if first > ROUND * 100 else timed(run)))) for run, first in runs
    ]
    times: list[list[float]] = [[] for _ in runs]
    end = perf_counter() + budget * len(runs)
    least = 5 if sum(first for _, first in runs) < LONG else 3
    while len(times[0]) < least or perf_counter() < end:
        order = range(len(runs))
        for i in order if len(times[0]) % 2 == 0 else reversed(order):
            times[i].append(timed(runs[i][0], calls[i]))
    return times


def rate(backend: str, budget: float, batch: int = 4096) -> float:
    """GFLOP/s of x @ x.T, the best of some."""
    run = losses.product(backend, batch)
    run()
    best, end = timed(run), perf_counter() + budget
    while perf_counter() < end:
        best = min(best, timed(run))
    return 2 * batch**2 * losses.DIM / best / 1e9


def reset_peak() -> int:
    """Give free memory back to the system, start the peak anew; bytes resident now."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Largest number of bytes resident since the peak was reset, or ever where that cannot be."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        kilo = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo


def reason(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    memory = ("can't allocate", "RESOURCE_EXHAUSTED", "OOM", "Out of memory", "CUDA out of memory")
    if isinstance(error, MemoryError) or any(sign in text for sign in memory):
        return "out of memory"
    return text.splitlines()[0][:120]


def in_subprocess(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Measure a job in a fresh process; what ends the process becomes the rows' error."""
    environment = {**os.environ, "KERAS_BACKEND": job["backend"], "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "benchmarks.measure", json.dumps(job)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=8 * LIMIT
        )
    except subprocess.TimeoutExpired:
        return failed(job, f"over {8 * LIMIT} s in all")
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode == -signal.SIGALRM:
        return failed(job, f"over {LIMIT} s a step")
    if done.returncode == -signal.SIGKILL:
        return failed(job, "out of memory")
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return failed(job, f"exit {done.returncode}: {last[:120]}")


def failed(job: dict[str, Any], error: str) -> list[dict[str, Any]]:
    return [{**row, "error": error} for row in unmeasured(job)]


if __name__ == "__main__":
    # Where memory runs out, the system ends this process and not the one that waits for it.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    print(json.dumps(in_process(json.loads(sys.argv[1]))))
