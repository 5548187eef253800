"""Ranks of torch.distributed: what they refuse, what they find out about each other, faults."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases import batch
from kinfold import EmbeddingModel, losses
from kinfold.compat import tensorflow_similarity as tfsim
from kinfold.compat.pytorch_metric_learning import losses as pml
from native import BACKEND, number

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="a feature of PyTorch alone")


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


def on_ranks(check: Callable[[int], Any], folder: Path, size: int = 2, answering: int = 2) -> list:
    """What `check(rank)` returns or raises on each rank that answers."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    group = str(folder / "group")
    ranks = [
        context.Process(target=_process, args=(check, rank, size, group, answers))
        for rank in range(size)
    ]
    for one in ranks:
        one.start()
    found = dict(answers.get(timeout=180) for _ in range(answering))
    for one in ranks:
        one.join()
    return [found[rank] for rank in sorted(found)]


def refusals(rank: int) -> list[str]:
    y, x = batch(6, d=4)
    calls: dict[str, Callable[[], Any]] = {
        name: lambda name=name: getattr(tfsim.losses, name)()(x, x)
        for name in ("SimCLRLoss", "Barlow", "VicReg", "MultiNegativesRankLoss")
    }
    import keras

    inputs = keras.Input((4,))
    model = EmbeddingModel(inputs, keras.layers.Dense(2)(inputs))
    model.compile("sgd", losses.TripletLoss(distance="euclidean"))
    calls["fit"] = lambda: model.fit(x, y, verbose=0)
    same = y[:, None] == y[None]
    calls["columns"] = lambda: losses.CircleLoss()(same, x)
    lifted = pml.LiftedStructureLoss()
    calls["pml"] = lambda: lifted(x, y, ref_emb=x[:4], ref_labels=y[:4])
    found = []
    for call in calls.values():
        try:
            call()
        except (NotImplementedError, ValueError) as error:
            found.append(str(error))
    return found


def test_what_no_rank_can_compute_is_refused(tmp_path: Path) -> None:
    for found in on_ranks(refusals, tmp_path):
        assert len(found) == 7
        assert all("would see only one rank's rows" in message for message in found[:4])
        assert "`fit` of this Keras combines no gradients" in found[4]
        assert "a column for each row of `y_pred`, 12" in found[5]
        assert "no rule for several ranks" in found[6]


def local(rank: int) -> tuple[float, float]:
    y, x = batch(10, seed=rank)
    loss = losses.CircleLoss(gamma=8.0, gather_across_devices=False)
    kept = losses.CircleLoss.from_config(loss.get_config())
    # Only one rank calls it: nothing is sent.
    return (number(loss(y, x)), number(kept(y, x))) if rank else (0.0, 0.0)


def test_a_local_loss_sends_nothing(tmp_path: Path) -> None:
    y, x = batch(10, seed=1)
    alone = number(losses.CircleLoss(gamma=8.0)(y, x))
    assert on_ranks(local, tmp_path)[1] == (alone, alone)


def settings(rank: int) -> None:
    y, x = batch(6)
    losses.CircleLoss(gamma=8.0 + rank)(y, x)


def sizes(rank: int) -> None:
    y, x = batch(6, d=4 + rank)
    losses.CircleLoss()(y, x)


def dtypes(rank: int) -> None:
    y, x = batch(6)
    losses.CircleLoss()(y, x.astype("float64") if rank else x)


def kinds(rank: int) -> None:
    y, x = batch(6)
    losses.TripletLoss()(y, x) if rank else losses.CircleLoss()(y, x)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (settings, "agree on the settings of the loss. Rank 0 has {"),
        (sizes, "the size of the embeddings. Rank 0 has 4, and rank 1 has 5."),
        (dtypes, "the dtype of the embeddings. Rank 0 has float32, and rank 1 has float64."),
        (kinds, "the loss. Rank 0 has CircleLoss, and rank 1 has TripletLoss."),
    ],
)
def test_ranks_that_disagree(check: Any, message: str, tmp_path: Path) -> None:
    for found in on_ranks(check, tmp_path):
        assert found.startswith("ValueError: The ranks of this run must agree on")
        assert message in found


def killed(rank: int) -> str:
    y, x = batch(6)
    loss = losses.CircleLoss()
    loss(y, x)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    loss(y, x)
    return "went on"


def test_a_rank_that_is_killed_stops_the_others(tmp_path: Path) -> None:
    (found,) = on_ranks(killed, tmp_path, answering=1)
    assert "LostRankError: Rank 1 no longer answers" in found


def equal_batches(rank: int) -> list[float]:
    y, x = batch(8)
    found = losses.TripletLoss(reduction="none")(y, x)
    return np.asarray(found).tolist()


def test_without_reduction_each_rank_has_its_own_anchors(tmp_path: Path) -> None:
    y, x = batch(8)
    alone = losses.TripletLoss(reduction="none")(np.tile(y, 2), np.tile(x, (2, 1)))
    expected = np.asarray(alone).reshape(2, 8).tolist()
    assert on_ranks(equal_batches, tmp_path) == expected
