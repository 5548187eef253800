"""Runs a check on several processes of torch.distributed, which talk by gloo."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _process(check: Callable[[int], Any], rank: int, size: int, path: str, answers: Any) -> None:
    import datetime

    import torch.distributed as dist

    method, wait = f"file://{path}", datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=method, rank=rank, world_size=size, timeout=wait)
    try:
        answers.put((rank, check(rank)))
    except Exception as error:
        answers.put((rank, f"{type(error).__name__}: {error}"))
    if "killed" not in check.__name__:
        dist.barrier()
        dist.destroy_process_group()


def on_ranks(
    check: Callable[[int], Any], folder: Path, size: int = 2, answering: int | None = None
) -> list:
    """What `check(rank)` returns or raises on each rank; the first `answering` where some end."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    group = str(folder / "group")
    ranks = [
        context.Process(target=_process, args=(check, rank, size, group, answers))
        for rank in range(size)
    ]
    for one in ranks:
        one.start()
    found = dict(answers.get(timeout=180) for _ in range(answering or size))
    for one in ranks:
        one.join()
    return [found[rank] for rank in sorted(found)]
