"""Devices of JAX: one process, whose arrays lie on all of them."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import keras

from _kinfold_devices import HOST_DEVICES
from kinfold.training.devices.one import Devices


class _Shared(Devices):
    def __init__(self, devices: list[Any]) -> None:
        self.count = len(devices)
        names = [f"{one.platform}:{one.id}" for one in devices]
        self.distribution = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)

    def scope(self) -> Any:
        return _distributed(self.distribution)

    def measuring(self) -> Any:
        # Keras would cut the last few examples into shares of unequal size, which JAX refuses.
        return _distributed(None)


@contextlib.contextmanager
def use(count: int) -> Iterator[Devices]:
    """Take the first `count` devices."""
    if count == 1:
        yield Devices()
        return
    found = jax.devices()
    if len(found) < count:
        kind = found[0].platform
        host = kind == "cpu"
        more = f", or set XLA_FLAGS={HOST_DEVICES}={count} before JAX starts" if host else ""
        raise ValueError(
            f"JAX has {len(found)} {kind.upper()} device{'s' * (len(found) > 1)} here: pass at "
            f"most that many{more}. Received: devices={count}."
        )
    yield _Shared(found[:count])


@contextlib.contextmanager
def _distributed(distribution: Any) -> Iterator[None]:
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(distribution)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)
