"""Devices of TensorFlow: replicas under MirroredStrategy, which each hold a share of the rows."""

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from kinfold.training.devices.one import Devices


class _Replicas(Devices):
    global_arrays = False

    def __init__(self, names: list[str]) -> None:
        self.count = len(names)
        self.strategy = tf.distribute.MirroredStrategy(names)

    def scope(self) -> Any:
        return self.strategy.scope()


@contextlib.contextmanager
def use(count: int) -> Iterator[Devices]:
    """Take the first `count` GPUs; where there is none, make as many devices of the CPU."""
    if count == 1:
        yield Devices()
        return
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if kind == "CPU":
        cpu = tf.config.list_physical_devices("CPU")[0]
        with contextlib.suppress(RuntimeError):  # TensorFlow has started: what is there stays
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
            )
    there = len(tf.config.list_logical_devices(kind))
    if there < count:
        more = ", in a process that has computed nothing before" if kind == "CPU" else ""
        raise ValueError(
            f"TensorFlow has {there} {kind} device{'s' * (there > 1)} here: pass at most that "
            f"many{more}. Received: devices={count}."
        )
    yield _Replicas([f"{kind}:{i}" for i in range(count)])
