"""A process for each device on PyTorch, started by torchrun's own launcher."""

import logging
import os
import signal
import sys
import uuid

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from kinfold.training.devices.torch import check_keras


class RankFailedError(OSError):
    """A process of the run ended with a fault."""


def launch(count: int, arguments: list[str]) -> int:
    """Run `kinfold ARGUMENTS` in `count` processes.

    Returns:
        The exit code: 2 if a process has told what was wrong with what was asked, 130 after
        Ctrl-C, 0 if none failed.

    Raises:
        ValueError: there are fewer GPUs, or Keras is too old.
        RankFailedError: a process ended otherwise; the message names it.
    """
    check_keras()
    gpus = torch.cuda.device_count()
    if gpus and gpus < count:
        raise ValueError(
            f"PyTorch has {gpus} GPU{'s' * (gpus > 1)} here: pass at most that many. "
            f"Received: devices={count}."
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (cores or 1) // count)))
    # After Ctrl-C rank 0 measures what is there: seconds until it is killed.
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    logging.disable(logging.ERROR)  # of the launcher: what it finds is raised too
    try:
        elastic_launch(config, sys.executable)("-m", "kinfold_cli", *arguments)
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            return 130
        raise RankFailedError(f"Ended by {error.sigval.name}.") from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode == 2:
            return 2
        raise RankFailedError(_told(rank, count, failure)) from None
    finally:
        logging.disable(logging.NOTSET)
    return 0


def _told(rank: int, count: int, failure: object) -> str:
    code = failure.exitcode  # type: ignore[attr-defined]
    ended = (
        f"was ended by {signal.Signals(-code).name}"
        if code < 0
        else f"failed with exit code {code}"
    )
    return (
        f"Rank {rank} of {count} (process {failure.pid}) {ended}, so the others were "  # type: ignore[attr-defined]
        "stopped. Whole epochs are kept."
    )
