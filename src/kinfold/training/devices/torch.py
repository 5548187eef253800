"""Devices of PyTorch: a process for each, a rank of `torch.distributed`, whoever started them.

Keras, from 3.16 on, averages the gradients of the ranks in `fit`.
"""

import contextlib
import datetime
import itertools
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed as dist

from kinfold.distributed.torch import fit_combines_gradients
from kinfold.distributed.torch_collectives import lost_ranks_told
from kinfold.training.devices.one import Devices

_LONGEST = datetime.timedelta(days=7)  # that rank 0 may take to read the data
_calls = itertools.count()


class _Ranks(Devices):
    global_arrays = False

    def __init__(self) -> None:
        self.count, self.rank = dist.get_world_size(), dist.get_rank()

    def scope(self) -> Any:
        return lost_ranks_told()

    def wait(self) -> None:
        # By the store, as a barrier has the time-out of a step.
        store, key = dist.distributed_c10d._get_default_store(), f"kinfold/prepared/{next(_calls)}"
        if self.rank == 0:
            store.set(key, "1")
        else:
            with lost_ranks_told():
                store.wait([key], _LONGEST)


def check_keras() -> None:
    """Raise ValueError if `fit` of this Keras trains each process by itself."""
    if not fit_combines_gradients():
        import keras

        raise ValueError(
            "On PyTorch several devices need Keras 3.16 or newer, whose `fit` combines their "
            "gradients: pass --devices 1, or use --backend jax. Received: Keras "
            f"{keras.__version__}."
        )


@contextlib.contextmanager
def use(count: int) -> Iterator[Devices]:
    """Take part in the group of processes that there is, or that torchrun started."""
    if not dist.is_available():
        started = joined = False
    else:
        joined = dist.is_initialized()
        started = not joined and dist.is_torchelastic_launched()
    if not started and not joined:
        if count > 1:
            check_keras()
            raise ValueError(
                "On PyTorch each device has a process of its own: start them with kinfold train "
                f"--devices {count}, or with torchrun. Received: devices={count} in one process."
            )
        yield Devices()
        return
    world = dist.get_world_size() if joined else int(os.environ["WORLD_SIZE"])
    if world == 1:
        yield Devices()
        return
    check_keras()
    if started:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group()
    try:
        yield _Ranks()
    finally:
        if started:
            dist.destroy_process_group()
