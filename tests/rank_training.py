"""Trains a model on several ranks: `rank_training.py WORLD FILE [RANK]`; writes losses and weights.

WORLD may be 1, for what one process gives. PyTorch: processes with DistributedDataParallel.
TensorFlow: `fit` under MirroredStrategy. JAX: `fit` under keras.distribution.DataParallel.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORLD, FILE = int(sys.argv[1]), Path(sys.argv[2])
BACKEND = os.environ["KERAS_BACKEND"]
STEPS, BATCH = 10, 12

if BACKEND == "jax":
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={WORLD}"
        " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    )

import keras  # noqa: E402
import numpy as np  # noqa: E402

import kinfold  # noqa: E402
from kinfold import losses  # noqa: E402


def made() -> dict[str, tuple[Any, int]]:
    """Losses, and the size of a memory for each."""
    found = {
        "circle": (losses.CircleLoss(gamma=16.0), 0),
        "circle-memory": (losses.CircleLoss(gamma=16.0), 30),
        "triplet": (losses.TripletLoss(), 0),
        "triplet-balanced": (losses.TripletLoss(), 0),
        "triplet-memory": (losses.TripletLoss(), 7),
        "sup_con": (losses.SupConLoss(), 0),
        "sup_con-memory": (losses.SupConLoss(), 30),
        "arc_face": (losses.ArcFaceLoss(6, 4, scale=8.0), 0),
        "info_nce": (losses.InfoNCELoss(train_temperature=True), 0),
    }
    if BACKEND == "torch" or "KINFOLD_TEST_EVERY" in os.environ:
        return found
    # The others compile each for a while.
    kept = ("circle-memory", "triplet-balanced", "arc_face", "info_nce")
    return {name: found[name] for name in kept}


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    sides = (2,) if name == "info_nce" else ()
    x = rng.normal(size=(STEPS * BATCH, *sides, 8)).astype("float32")
    y = rng.integers(0, 6, STEPS * BATCH)
    return x + (0 if sides else np.eye(8, dtype="float32")[y]), y


def model_of(name: str, loss: Any, memory: int) -> Any:
    keras.utils.set_random_seed(1)
    x, _ = data(name)
    inputs = keras.Input(x.shape[1:])
    outputs = kinfold.layers.L2Embedding(4)(inputs)
    model = kinfold.EmbeddingModel(inputs, outputs)
    options = {"memory_size": memory} if memory else {}
    model.compile(keras.optimizers.SGD(0.1), loss, **options)
    model.build(x.shape)
    for i, variable in enumerate(model.trainable_variables):
        numbers = np.random.default_rng(i).normal(size=variable.shape)
        if variable.shape:
            variable.assign(keras.ops.convert_to_tensor(numbers, dtype=variable.dtype))
    return model


def own(batch: slice, rank: int) -> slice:
    """A rank's rows of a batch."""
    size = BATCH // WORLD
    return slice(batch.start + rank * size, batch.start + (rank + 1) * size)


def batches() -> list[slice]:
    return [slice(i * BATCH, (i + 1) * BATCH) for i in range(STEPS)]


def balanced(x: np.ndarray, y: np.ndarray) -> Any:
    """As many class-balanced batches of that size, in two epochs."""
    return kinfold.batches.ClassBalancedBatches(x, y, 3, BATCH // 3, STEPS // 2, seed=5)


def rows_of(name: str, rank: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A rank's rows of each batch."""
    x, y = data(name)
    if name.endswith("balanced"):
        every = balanced(x, y)
        for _ in range(2):
            yield from every
            every.on_epoch_end()
    else:
        yield from ((x[rows], y[rows]) for rows in (own(batch, rank) for batch in batches()))


def told(model: Any) -> list[np.ndarray]:
    kept = [v for v in model.variables if v.dtype != "uint32"]  # not the seeds
    return [np.asarray(keras.ops.convert_to_numpy(v)) for v in kept]


def of_torch(rank: int) -> dict[str, Any]:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if WORLD > 1:
        method = f"file://{FILE}.group"
        dist.init_process_group("gloo", init_method=method, rank=rank, world_size=WORLD)
    found: dict[str, Any] = {}
    for name, (loss, memory) in made().items():
        found |= stepped(name, loss, memory, rank)
    if WORLD > 1:
        every: list[Any] = [None] * WORLD
        dist.all_gather_object(every, found)
        for name, value in found.items():  # all ranks hold the same
            for other in every:
                assert np.array_equal(other[name], value), name
        dist.destroy_process_group()
    return found


def stepped(name: str, loss: Any, memory: int, rank: int) -> dict[str, Any]:
    """What a loop of PyTorch trains; a function, so that the process group ends after the model.

    Where DistributedDataParallel holds the last reference to a group, PyTorch 2.13 can wait
    forever: it joins gloo's thread with Python's lock held, which that thread may need too.
    """
    import torch

    model = run = model_of(name, loss, memory)
    if WORLD > 1:
        run = torch.nn.parallel.DistributedDataParallel(model)
    trained = [v.value for v in model.trainable_variables]
    optimizer, values = torch.optim.SGD(trained, lr=0.1), []
    for x, y in rows_of(name, rank):
        value = model.compute_loss(y=torch.tensor(y), y_pred=run(torch.tensor(x)))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    kept = {f"{name}/{i}": v for i, v in enumerate(told(model))}
    return {f"{name}/losses": values, **kept}


def by_fit(scope: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with scope():
        every = made()
    for name, (loss, memory) in every.items():
        with scope():
            model, (x, y) = model_of(name, loss, memory), data(name)
        if name.endswith("balanced"):
            found[f"{name}/losses"] = model.fit(balanced(x, y), epochs=2, verbose=0).history["loss"]
        else:  # one batch an epoch, whose loss is then that of the step
            epochs = [
                model.fit(x[b], y[b], batch_size=BATCH, verbose=0, shuffle=False) for b in batches()
            ]
            found[f"{name}/losses"] = [epoch.history["loss"][0] for epoch in epochs]
        found.update({f"{name}/{i}": v for i, v in enumerate(told(model))})
    return found


if __name__ == "__main__":
    if BACKEND == "torch" and WORLD > 1 and len(sys.argv) < 4:
        command = [sys.executable, __file__, *sys.argv[1:]]
        ranks = [subprocess.Popen([*command, str(rank)]) for rank in range(WORLD)]
        codes = [rank.wait() for rank in ranks]
        raise SystemExit(f"ranks ended with {codes}" if any(codes) else 0)
    rank = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    if BACKEND == "torch":
        found = of_torch(rank)
    elif BACKEND == "jax":
        devices = keras.distribution.list_devices()
        if WORLD > 1:
            keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
        found = by_fit(contextlib.nullcontext)
    else:
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(WORLD)]
        )
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(WORLD)])
        found = by_fit(strategy.scope if WORLD > 1 else contextlib.nullcontext)
    if rank == 0:
        np.savez(FILE, **found)
