"""Computes the checks of `rank_checks` on several ranks: `rank_worker.py WORLD FILE [RANK]`.

PyTorch: as many processes, which talk by gloo. TensorFlow: logical devices under MirroredStrategy.
JAX: host devices, over which the arrays are sharded.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
WORLD, FILE = int(sys.argv[1]), Path(sys.argv[2])
BACKEND = os.environ["KERAS_BACKEND"]

if BACKEND == "jax":
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={WORLD}"
        " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    )

# The kernels run in the interpreter, which Triton chooses when it is imported.
os.environ.setdefault("TRITON_INTERPRET", "1")
with contextlib.suppress(ImportError):
    import triton  # noqa: F401
import numpy as np  # noqa: E402


def by_road(name: str, check: Any, *args: Any) -> Any:
    from kinfold.streaming import road

    told = check.road
    if BACKEND == "tensorflow" and not name.endswith("blocks"):
        told = "one_block"  # of unknown size it would be compiled in blocks, which takes long
    with road(told) if told else contextlib.nullcontext():
        return check.call(*args)


def of_torch() -> None:
    if len(sys.argv) < 4:
        command = [sys.executable, __file__, *sys.argv[1:]]
        ranks = [subprocess.Popen([*command, str(rank)]) for rank in range(WORLD)]
        codes = [rank.wait() for rank in ranks]
        if any(codes):
            raise SystemExit(f"ranks ended with {codes}")
        return
    import torch
    import torch.distributed as dist

    from rank_checks import checks, part

    rank = int(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{FILE}.group", rank=rank, world_size=WORLD)
    found: dict[str, Any] = {}
    for name, check in checks().items():
        grad, data = part(check, rank, WORLD)
        tensors = {k: torch.tensor(a, requires_grad=True) for k, a in grad.items()}
        loss = check.build()
        value = by_road(name, check, loss, tensors, {k: torch.tensor(a) for k, a in data.items()})
        trained = [v.value for v in getattr(loss, "trainable_variables", [])]
        every = [*tensors.values(), *trained]
        gradients = torch.autograd.grad(value.sum(), every, allow_unused=False)
        scale = 1 if value.ndim else WORLD  # that DistributedDataParallel takes out
        values = [None] * WORLD
        dist.all_gather_object(values, value.detach().numpy())
        if value.ndim:
            found[f"{name}/value"] = np.concatenate(values)
        else:
            assert len({float(v) for v in values}) == 1, (name, values)
            found[f"{name}/value"] = values[0]
        for key, g in zip(grad, gradients, strict=False):
            parts = [None] * WORLD
            dist.all_gather_object(parts, g.numpy() / scale)
            found[f"{name}/{key}"] = np.concatenate(parts)
        for i, g in enumerate(gradients[len(grad) :]):
            dist.all_reduce(g)
            found[f"{name}/variable{i}"] = g.numpy() / WORLD
    if rank == 0:
        np.savez(FILE, **found)
    dist.barrier()
    dist.destroy_process_group()


def of_tensorflow() -> None:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(WORLD)]
    )
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(WORLD)])
    from rank_checks import checks, part

    def unknown_size(a: Any) -> Any:
        return tf.raw_ops.PlaceholderWithDefault(input=a, shape=[None, *a.shape[1:]])

    found: dict[str, Any] = {}
    for name, check in checks().items():
        with strategy.scope():
            loss = check.build()
        parts = [part(check, rank, WORLD) for rank in range(WORLD)]

        def given(context: Any, parts: Any = parts) -> Any:
            arrays = parts[context.replica_id_in_sync_group]
            return [{k: tf.constant(a) for k, a in group.items()} for group in arrays]

        @tf.autograph.experimental.do_not_convert
        def step(arrays: Any, name: str = name, check: Any = check, loss: Any = loss) -> Any:
            if check.empty:  # of unknown size, as `fit` gives them: all replicas run one program
                arrays = tf.nest.map_structure(unknown_size, arrays)
            grad, data = arrays
            variables = [v.value for v in getattr(loss, "trainable_variables", [])]
            with tf.GradientTape() as tape:
                tape.watch(grad)
                value = by_road(name, check, loss, grad, data)
            return value, tape.gradient(value, [list(grad.values()), variables])

        values = strategy.experimental_distribute_values_from_function(given)
        run = tf.function(lambda v, step=step: strategy.run(step, args=(v,)), autograph=False)
        answers = run(values)
        value, (gradients, trained) = answers
        value = [v.numpy() for v in strategy.experimental_local_results(value)]
        found[f"{name}/value"] = np.concatenate(value) if value[0].ndim else sum(value)
        for key, g in zip(check.grad, gradients, strict=True):
            local = strategy.experimental_local_results(g)
            found[f"{name}/{key}"] = np.concatenate([p.numpy() for p in local])
        for i, g in enumerate(trained):
            local = strategy.experimental_local_results(g)
            found[f"{name}/variable{i}"] = sum(p.numpy() for p in local)
    np.savez(FILE, **found)


def of_jax() -> None:
    import jax
    import jax.numpy as jnp
    import keras
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from rank_checks import checks

    mesh = jax.make_mesh((WORLD,), ("batch",), axis_types=(AxisType.Auto,))

    def placed(a: np.ndarray) -> Any:
        spec = PartitionSpec("batch") if len(a) % WORLD == 0 else PartitionSpec()
        return jax.device_put(jnp.asarray(a), NamedSharding(mesh, spec))

    found: dict[str, Any] = {}
    for name, check in checks().items():
        wide = any(a.dtype == np.float64 for a in check.grad.values())
        with jax.enable_x64(wide), jax.set_mesh(mesh):
            loss = check.build()
            variables = list(getattr(loss, "trainable_variables", []))

            def total(grad: Any, values: Any, data: Any) -> Any:
                with keras.StatelessScope(zip(variables, values, strict=True)):  # noqa: B023
                    value = by_road(name, check, loss, grad, data)  # noqa: B023
                return jnp.sum(value), value

            arrays = [
                {k: placed(a) for k, a in group.items()} for group in (check.grad, check.data)
            ]
            step = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
            (_, value), (g, trained) = step(arrays[0], [v.value for v in variables], arrays[1])
            found[f"{name}/value"] = np.asarray(value)
            found.update({f"{name}/{k}": np.asarray(a) for k, a in g.items()})
            found.update({f"{name}/variable{i}": np.asarray(a) for i, a in enumerate(trained)})
    np.savez(FILE, **found, **in_shard_map(mesh))


def in_shard_map(mesh: Any) -> dict[str, Any]:
    """What a loss does where it sees one device's rows."""
    import jax
    from jax.sharding import PartitionSpec

    from cases import batch
    from kinfold import losses

    y, x = batch(8 * WORLD)

    def on_each(loss: Any) -> Any:
        cut = PartitionSpec("batch")
        own = jax.shard_map(
            lambda y, x: loss(y, x)[None], mesh=mesh, in_specs=cut, out_specs=cut, check_vma=False
        )
        return np.asarray(jax.jit(own)(y, x))

    try:
        said = str(on_each(losses.CircleLoss()))
    except NotImplementedError as error:
        said = str(error)
    alone = losses.CircleLoss(gather_across_devices=False)
    return {"shard_map/said": said, "shard_map/local": on_each(alone)}


if __name__ == "__main__":
    {"jax": of_jax, "torch": of_torch, "tensorflow": of_tensorflow}[BACKEND]()
