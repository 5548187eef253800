"""The devices that share the batches of a run: each backend says here what it needs for several.

A batch is the global batch whatever their number, so what is trained does not depend on it.
"""

import contextlib
from collections.abc import Iterator

from kinfold.core import backends
from kinfold.training.devices.one import Devices as Devices


@contextlib.contextmanager
def use(count: int) -> Iterator[Devices]:
    """Give the devices of a run.

    Args:
        count: how many; more than there are processes in a group of torch.distributed is refused.

    Raises:
        ValueError: there are fewer devices.
    """
    with backends.module(__name__).use(count) as devices:
        yield devices
