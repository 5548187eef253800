"""Time and memory of a training step with a memory of earlier batches, ours and the peer's.

A step is the loss of a batch of 256 against itself and a full memory, its gradient with respect to
the batch, and the writing of the batch into the memory; embeddings of 128, unit norm, no encoder.
Memory is what the step takes at its peak beyond what was resident before it, the bank included.
"""

import contextlib
import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import chunks, machine, measure, options
from benchmarks.tables import table
from benchmarks.targets import MIB, seconds

HELP = "a step with a memory of earlier batches"
BATCH, DIM, CLASSES = 256, 128, 50_000
SIZES = (16_384, 65_536, 262_144, 1_000_000)
LOSSES = ("PairContrastiveLoss", "CircleLoss")
PEERS = {"PairContrastiveLoss": "ContrastiveLoss", "CircleLoss": "CircleLoss"}
OURS, PEER = "kinfold", "pytorch-metric-learning"
MEMORY = 16.0  # GiB that a process may take
REPEATS = 3  # the best is kept

Row = dict[str, Any]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    options.add_backends(parser)
    options.add_out(parser)


def main(arguments: Namespace, parser: ArgumentParser) -> None:
    """Run the command; `parser` tells what is wrong with the options."""
    print(report(run(options.backends(arguments, parser), arguments.out)))


def run(backends: Sequence[str], out: Path) -> Row:
    """Measure, and write memory.json after every process."""
    record = {"benchmark": "memory", **machine.describe(), "batch": BATCH, "dim": DIM}
    record["rows"] = rows = []
    for job in jobs(backends, rows):
        print(*(str(job[name]) for name in ("backend", "loss", "who", "size")), file=sys.stderr)
        rows.append(chunks.in_subprocess(job, "benchmarks.memory"))
        machine.write(out / "memory.json", record)
    return record


def jobs(backends: Sequence[str], rows: Sequence[Row]) -> Iterator[Row]:
    """Ours on each backend, the peer on PyTorch, at no larger size than the first that fails."""
    for loss in LOSSES:
        for backend in backends:
            for who in (OURS, PEER) if backend == "torch" else (OURS,):
                for size in SIZES:
                    yield {
                        "backend": backend,
                        "loss": loss,
                        "who": who,
                        "size": size,
                        "memory_gib": MEMORY,
                    }
                    if rows and "error" in rows[-1]:
                        break


def in_process(job: Row) -> Row:
    """Seconds and bytes of a step, in this process, with KERAS_BACKEND set."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, DIM), "float32")
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.arange(BATCH) // 4
    bank = rng.standard_normal((job["size"], DIM), "float32")
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    bank_y = rng.integers(0, CLASSES, job["size"])
    make = _peer if job["who"] == PEER else {"jax": _jax, "torch": _torch, "tensorflow": _tf}[
        job["backend"]
    ]  # fmt: skip
    step = make(job["loss"], x, y, bank, bank_y)
    del bank
    extra, _ = measure.weighed(step)
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        value, gradient = step()
        taken.append(time.perf_counter() - start)
    if not (np.isfinite(value) and gradient > 0):
        raise RuntimeError(f"The loss is {value}, its gradient {gradient}.")
    return {
        "seconds": min(taken),
        "extra_bytes": extra,
        "bank_bytes": job["size"] * DIM * 4,
        "value": value,
        "gradient": gradient,
    }


def _filled(loss: str, bank: np.ndarray, bank_y: np.ndarray) -> Any:
    import kinfold

    memory = kinfold.CrossBatchMemory(getattr(kinfold.losses, loss)(), len(bank), DIM)
    memory.embeddings.assign(bank)
    memory.labels.assign(bank_y)
    memory.filled.assign(len(bank))
    return memory


def _torch(loss: str, x: np.ndarray, y: np.ndarray, *bank: np.ndarray) -> Callable[[], Any]:
    import torch

    memory, labels = _filled(loss, *bank), torch.tensor(y)
    return _backward(lambda batch: memory(labels, batch), x)


def _peer(loss: str, x: np.ndarray, y: np.ndarray, *bank: np.ndarray) -> Callable[[], Any]:
    import torch
    from pytorch_metric_learning import losses

    one = getattr(losses, PEERS[loss])()
    memory = losses.CrossBatchMemory(one, DIM, memory_size=len(bank[0]))
    memory.embedding_memory = torch.tensor(bank[0])
    memory.label_memory = torch.tensor(bank[1])
    memory.has_been_filled = True
    labels = torch.tensor(y)
    return _backward(lambda batch: memory(batch, labels), x)


def _backward(loss: Callable[[Any], Any], x: np.ndarray) -> Callable[[], Any]:
    import torch

    def step() -> tuple[float, float]:
        batch = torch.tensor(x, requires_grad=True)
        value = loss(batch)
        value.backward()
        return float(value.detach()), float(batch.grad.abs().sum())

    return step


def _tf(loss: str, x: np.ndarray, y: np.ndarray, *bank: np.ndarray) -> Callable[[], Any]:
    import tensorflow as tf

    memory, batch, labels = _filled(loss, *bank), tf.constant(x), tf.constant(y)

    @tf.function
    def traced(labels: Any, batch: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(batch)
            value = memory(labels, batch)
        return value, tf.reduce_sum(tf.abs(tape.gradient(value, batch)))

    return lambda: tuple(float(part) for part in traced(labels, batch))


def _jax(loss: str, x: np.ndarray, y: np.ndarray, *bank: np.ndarray) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    memory = _filled(loss, *bank)
    state = [jnp.array(v.value) for v in memory.non_trainable_variables]
    for variable in memory.non_trainable_variables:
        variable._value = None  # the loop below holds the state: one bank, not two

    def call(x: Any, state: Any, y: Any) -> Any:
        return memory.stateless_call([], state, y, x)

    def traced(x: Any, state: Any, y: Any) -> Any:
        (value, state), gradient = jax.value_and_grad(call, has_aux=True)(x, state, y)
        return value, jnp.sum(jnp.abs(gradient)), state

    compiled = jax.jit(traced, donate_argnums=1)

    def step() -> tuple[float, float]:
        nonlocal state
        value, gradient, state = compiled(x, state, y)
        return float(value), float(gradient)

    return step


def report(record: Row) -> str:
    """A line a measurement."""
    device, lines = record["device"], []
    for row in record["rows"]:
        line = (row["loss"], row["backend"], row["who"], f"{row['size']:,}")
        if "error" in row:
            lines.append((*line, row["error"]))
            continue
        bank, extra = (f"{row[name] / MIB:.0f}" for name in ("bank_bytes", "extra_bytes"))
        lines.append((*line, seconds(row["seconds"]), bank, extra, f"{row['value']:.5g}"))
    head = ("loss", "backend", "", "memory", "a step", "bank MiB", "extra MiB", "value")
    return "\n".join(
        (
            f"A batch of {record['batch']} against a memory, d = {record['dim']}, float32; "
            f"{device['cpu']}, {device['cores']} cores, {device['memory_gib']} GiB, at most "
            f"{MEMORY:g} GiB a process",
            "",
            table(head, lines, left=(0, 1, 2)),
        )
    )


if __name__ == "__main__":
    # Where memory runs out, the system ends this process and not the one that waits for it.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    print(json.dumps(in_process(json.loads(sys.argv[1]))))
