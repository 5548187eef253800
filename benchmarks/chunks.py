"""Memory and time of a training step with and without `kinfold.layers.Chunked`.

A step is forward, Circle loss, gradients and Adam, of a backbone of `keras.applications` with
random weights and an embedding of 128, on uint8 images. Memory is what the step takes at its peak
beyond what was resident before it: weights, optimizer and images.

Without chunks, BatchNormalization takes its statistics over the batch; in chunks, over each chunk.
So the two steps do not compute the same numbers, but the same amount of work, and one more forward
pass in chunks.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, measure, options
from benchmarks.tables import table
from benchmarks.targets import MIB, seconds

HELP = "memory of a training step, whole and in chunks"
BACKBONE, CHUNK, SIDE = "MobileNetV3Small", 16, 224
BATCHES, LARGEST = (16, 32, 64, 128, 256, 512), 4096
MEMORY = 10.0  # GiB that a process may take
LIMIT = 3 * 3600  # seconds that a process may take

Row = dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    options.add_backends(parser)
    parser.add_argument("--backbone", default=BACKBONE, help=f"({BACKBONE})")
    parser.add_argument("--side", type=int, default=SIDE, help=f"pixels ({SIDE})")
    parser.add_argument("--chunk", type=int, default=CHUNK, help=f"images ({CHUNK})")
    parser.add_argument("--batches", default=",".join(map(str, BATCHES)), help="of both")
    parser.add_argument("--largest", type=int, default=LARGEST, help="batch, in chunks only")
    parser.add_argument("--memory", type=float, default=MEMORY, help="GiB a process may take")
    options.add_out(parser)


def main(arguments: Namespace, parser: ArgumentParser) -> None:
    """Run the command; `parser` tells what is wrong with the options."""
    backends = options.backends(arguments, parser)
    settings = {
        "backbone": arguments.backbone,
        "side": arguments.side,
        "chunk": arguments.chunk,
        "batches": [int(batch) for batch in arguments.batches.split(",")],
        "largest": arguments.largest,
        "memory_gib": arguments.memory,
    }
    print(report(run(backends, arguments.out, settings)))


def run(backends: Sequence[str], out: Path, settings: Row) -> Row:
    """Measure, and write chunks.json after every process; what it has already is kept."""
    record = {"benchmark": "chunks", **machine.describe(), **settings, "rows": []}
    path = out / "chunks.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if all(before.get(name) == value for name, value in settings.items()):
            record["rows"] = before["rows"]
    for backend in backends:
        for job in jobs(backend, settings, record["rows"]):
            print(f"{backend}, {_kind(job)}, batch {job['batch']}", file=sys.stderr, flush=True)
            record["rows"].append(in_subprocess(job))
            machine.write(path, record)
    return record


def jobs(backend: str, settings: Row, rows: Sequence[Row]) -> Iterator[Row]:
    """What is not measured yet; without chunks no larger batch than the first that fails."""
    common = {name: settings[name] for name in ("backbone", "side", "memory_gib")}
    for chunk in (None, settings["chunk"]):
        batches = (
            settings["batches"] if chunk is None else (settings["batches"][-1], settings["largest"])
        )
        for batch in batches:
            job = {"backend": backend, "chunk": chunk, "batch": batch, **common}
            done = [row for row in rows if all(row[name] == job[name] for name in job)]
            if not done:
                yield job
                done = [row for row in rows if all(row[name] == job[name] for name in job)]
            if done and "error" in done[-1]:
                break


def in_subprocess(job: Row, module: str = "benchmarks.chunks") -> Row:
    """The row of a job, measured in a fresh process that ends where it takes too much memory."""
    environment = {**os.environ, "KERAS_BACKEND": job["backend"], "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", module, json.dumps(job)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=measure.ROOT, env=environment, stdout=pipe, stderr=pipe, text=True
    ) as process:
        end, error = time.monotonic() + LIMIT, ""
        while True:
            try:
                output, messages = process.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if resident(process.pid) > job["memory_gib"] * 2**30:
                    error = f"over {job['memory_gib']:g} GiB"
                elif time.monotonic() > end:
                    error = f"over {LIMIT} s"
                if error:
                    process.kill()
    if process.returncode == 0:
        return {**job, **json.loads(output.splitlines()[-1])}
    if not error and process.returncode == -signal.SIGKILL:
        error = "out of memory"
    last = (messages.strip().splitlines() or ["no message"])[-1]
    return {**job, "error": error or f"exit {process.returncode}: {last[:120]}"}


def resident(pid: int) -> int:
    """Bytes resident of a process, 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def in_process(job: Row) -> Row:
    """Seconds and bytes of a step, in this process, with KERAS_BACKEND set."""
    import keras

    import kinfold
    from kinfold import encoders

    shape = (job["side"], job["side"], 3)
    keras.utils.set_random_seed(0)
    encoder = encoders.application(job["backbone"], shape)
    model = encoder if job["chunk"] is None else kinfold.layers.Chunked(encoder, job["chunk"])
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    x = np.random.default_rng(0).integers(0, 256, (job["batch"], *shape), "uint8")
    y = np.arange(job["batch"], dtype="int32") // 4
    step = {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}[job["backend"]](
        model, kinfold.losses.CircleLoss(), optimizer, x, y, (job["chunk"] or 1) + 1
    )
    before = measure.reset_peak()
    start, worked = time.perf_counter(), time.process_time()
    loss = float(step())
    took, worked = time.perf_counter() - start, time.process_time() - worked
    peak = measure.peak()
    if not np.isfinite(loss):
        raise RuntimeError(f"The loss is {loss}.")
    return {
        "seconds": took,
        "cpu_seconds": worked,
        "extra_bytes": peak - before,
        "peak_bytes": peak,
        "loss": loss,
    }


def _jax(model: Any, loss: Any, optimizer: Any, x: Any, y: Any, warm: int) -> Callable[[], Any]:
    import jax

    def value(trainable: Any, others: Any, x: Any, y: Any) -> Any:
        embeddings, others = model.stateless_call(trainable, others, x, training=True)
        return loss(y, embeddings), others

    def step(trainable: Any, others: Any, state: Any, x: Any, y: Any) -> Any:
        gradient = jax.value_and_grad(value, has_aux=True)
        (total, others), gradients = gradient(trainable, others, x, y)
        trainable, state = optimizer.stateless_apply(state, gradients, trainable)
        return total, trainable, others, state

    variables = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    there = (*([v.value for v in group] for group in variables), jax.numpy.asarray(x), y)
    compiled = jax.jit(step).lower(*there).compile()
    return lambda: jax.block_until_ready(compiled(*there))[0]


def _tensorflow(
    model: Any, loss: Any, optimizer: Any, x: Any, y: Any, warm: int
) -> Callable[[], Any]:
    import tensorflow as tf

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, *x.shape[1:]), "uint8"),
            tf.TensorSpec((None,), "int32"),
        ]
    )
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            total = loss(y, model(x, training=True))
        optimizer.apply(tape.gradient(total, [v.value for v in model.trainable_variables]))
        return total

    step(tf.constant(x[:warm]), tf.constant(y[:warm]))
    there = tf.constant(x), tf.constant(y)
    return lambda: step(*there).numpy()


def _torch(model: Any, loss: Any, optimizer: Any, x: Any, y: Any, warm: int) -> Callable[[], Any]:
    import torch

    weights = model.trainable_variables

    def step(x: Any, y: Any) -> Any:
        for weight in weights:
            weight.value.grad = None
        total = loss(y, model(x, training=True))
        total.backward()
        with torch.no_grad():
            optimizer.apply([weight.value.grad for weight in weights])
        return total.detach()

    there = torch.from_numpy(x), torch.from_numpy(y)
    step(*(part[:warm] for part in there))
    return lambda: step(*there)


def report(record: Row) -> str:
    """A line a batch: with and without chunks, on each backend."""
    device, rows = record["device"], record["rows"]
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    lines = []
    for backend in backends:
        for batch in sorted({row["batch"] for row in rows if row["backend"] == backend}):
            cells = [_cells(rows, backend, batch, chunk) for chunk in (None, record["chunk"])]
            lines.append((backend, batch, *cells[0], *cells[1]))
    head = ("backend", "batch", "whole, MiB", "time", f"chunks of {record['chunk']}, MiB", "time")
    return "\n".join(
        (
            f"A training step of {record['backbone']}, images {record['side']} x "
            f"{record['side']} x 3; {device['cpu']}, {device['cores']} cores, "
            f"{device['memory_gib']} GiB, at most {record['memory_gib']:g} GiB a process",
            "",
            table(head, lines, left=(0,)),
            "",
            "MiB: at the peak of the step, beyond the weights, the optimizer and the images.",
        )
    )


def _cells(rows: Sequence[Row], backend: str, batch: int, chunk: int | None) -> tuple[str, str]:
    key = (backend, batch, chunk)
    found = [row for row in rows if (row["backend"], row["batch"], row["chunk"]) == key]
    if not found:
        return "", ""
    if "error" in found[-1]:
        return found[-1]["error"][:40], ""
    return f"{found[-1]['extra_bytes'] / MIB:.0f}", seconds(found[-1]["seconds"])


def _kind(job: Row) -> str:
    return "whole" if job["chunk"] is None else f"chunks of {job['chunk']}"


if __name__ == "__main__":
    # Where memory runs out, the system ends this process and not the one that waits for it.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    print(json.dumps(in_process(json.loads(sys.argv[1]))))
