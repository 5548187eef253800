"""The devices that share the batches of a run: each backend says here what it needs for several.

A batch is the global batch whatever their number, so what is trained does not depend on it.
"""

import contextlib
from collections.abc import Iterator

from kinfold.core import backends
from kinfold.training.devices.one import Devices as Devices


@contextlib.contextmanager
def use(count: int, asked: int | None) -> Iterator[Devices]:
    """Give the devices of a run.

    Args:
        count: how many; a group of processes of torch.distributed has the number that it has.
        asked: how many the user asked for, or None.

    Raises:
        ValueError: there are fewer devices, or the group has another number of processes.
    """
    with backends.module(__name__).use(count) as devices:
        if asked not in (None, devices.count):
            raise ValueError(
                f"There are {devices.count} processes, one for each device: leave --devices out. "
                f"Received: devices={asked}."
            )
        yield devices
