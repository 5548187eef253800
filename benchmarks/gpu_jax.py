"""The Circle loss in JAX, for the GPU benchmark: `python -m benchmarks.gpu_jax BATCH ...`."""

import json
import os
import sys
from time import perf_counter
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch is on the chip too

from benchmarks import gpu, measure


def measured(batch: int, dim: int = 512, budget: float = 1.0) -> dict[str, Any]:
    """Seconds of a compiled step with gradient, and of one without."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from kinfold import losses
    from kinfold.streaming import fused_kernels

    row: dict[str, Any] = gpu.job(gpu.CIRCLE, gpu.FUSED_JAX, batch, dim)
    try:
        key = jax.random.key(batch)
        x = jax.random.normal(key, (batch, dim))
        x = (x / jnp.linalg.norm(x, axis=1, keepdims=True)).astype("bfloat16")
        y = jnp.asarray(np.random.default_rng(0).permutation(batch) // gpu.CLASS_SIZE)
        loss = losses.CircleLoss(gpu.GAMMA, gpu.MARGIN, dtype="bfloat16")

        def value(x: Any, y: Any) -> Any:
            return loss(y, x).astype("float32")

        start = perf_counter()
        with fused_kernels():
            step = jax.jit(jax.value_and_grad(value)).lower(x, y).compile()
            alone = jax.jit(value).lower(x, y).compile()
        found = jax.block_until_ready(step(x, y))
        row["first_seconds"] = perf_counter() - start
        row["finite"] = bool(jnp.isfinite(found[1]).all() & jnp.isfinite(found[0]))
        row["seconds"] = timed(lambda: step(x, y), budget)
        row["evaluation_seconds"] = timed(lambda: alone(x, y), budget / 3)
        row["tflops"] = gpu.flops(row) / row["seconds"] / 1e12
        row["extra_bytes"] = step.memory_analysis().temp_size_in_bytes
        if batch <= 4096:
            row["gradient_error"] = error(x, y, found[1])
    except Exception as fault:
        row["error"] = measure.reason(fault)
    return row


def error(x: Any, y: Any, gradient: Any, rows: int = 32) -> float:
    """Of the gradient of the first rows, against float64 on the processor."""
    import numpy as np
    import torch

    leaf = torch.tensor(np.asarray(x, "float64"), requires_grad=True)
    labels = torch.tensor(np.asarray(y))
    same = labels[:, None] == labels[None, :]
    d = 1.0 - leaf @ leaf.T
    m, g = gpu.MARGIN, gpu.GAMMA
    p = g * torch.relu(m + d) * (d - m)
    n = g * torch.relu(1 + m - d) * (1 - m - d)
    none = torch.tensor(-torch.inf, dtype=torch.float64)
    positive = same & ~torch.eye(len(labels), dtype=torch.bool)
    sums = torch.logsumexp(torch.where(positive, p, none), 1)
    sums = sums + torch.logsumexp(torch.where(same, none, n), 1)
    torch.nn.functional.softplus(sums).mean().backward()
    got, truth = np.asarray(gradient[:rows], "float64"), leaf.grad[:rows].numpy()
    return float(np.linalg.norm(got - truth) / np.linalg.norm(truth))


def timed(run: Any, budget: float) -> float:
    """Median seconds."""
    import statistics

    import jax

    times: list[float] = []
    end = perf_counter() + budget
    while len(times) < 3 or (perf_counter() < end and len(times) < 200):
        start = perf_counter()
        jax.block_until_ready(run())
        times.append(perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    for batch in sys.argv[1:]:
        print(json.dumps(measured(int(batch))), flush=True)
