"""Ranks of torch.distributed: what they refuse, what they find out about each other, faults."""

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
from native import BACKEND, assert_close, number
from rank_processes import on_ranks

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="a feature of PyTorch alone")


def everything(rank: int) -> dict[str, Any]:
    """What each check returns or raises, one after the other: processes take long to start."""
    checks = (refusals, local, shards, ways, equal_batches, settings, sizes, dtypes, kinds)
    found: dict[str, Any] = {}
    for check in checks:
        try:
            found[check.__name__] = check(rank)
        except Exception as error:
            found[check.__name__] = f"{type(error).__name__}: {error}"
    return found


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(everything, tmp_path_factory.mktemp("ranks"))


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


def test_what_no_rank_can_compute_is_refused(answers: list) -> None:
    for found in (rank["refusals"] for rank in answers):
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


def test_a_local_loss_sends_nothing(answers: list) -> None:
    y, x = batch(10, seed=1)
    alone = number(losses.CircleLoss(gamma=8.0)(y, x))
    assert answers[1]["local"] == (alone, alone)


def of_shards(loss: Any, rank: int, size: int) -> list[Any]:
    """Losses of three steps, and the prototypes that a rank then holds."""
    import keras
    import torch

    count = 7  # no multiple of the ranks
    whole = np.random.default_rng(0).normal(size=(count, 4)).astype("float32")
    first, last = rank * count // size, (rank + 1) * count // size
    assert tuple(loss.prototypes.shape) == (last - first, 4)
    loss.prototypes.assign(whole[first:last])
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    model = EmbeddingModel(inputs, keras.layers.Dense(4)(inputs))
    model.compile("sgd", loss)
    run = torch.nn.parallel.DistributedDataParallel(model) if size > 1 else model
    optimizer = torch.optim.SGD([v.value for v in model.trainable_variables], lr=0.5)
    values = []
    for step in range(3):
        y, x = batch(9, d=6, classes=count, seed=step)
        weights = np.linspace(1.0, 2.0, 9, dtype="float32")
        own = slice(rank * 9 // size, (rank + 1) * 9 // size)
        value = model.compute_loss(
            y=torch.tensor(y[own]),
            y_pred=run(torch.tensor(x[own])),
            sample_weight=torch.tensor(weights[own]),
        )
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(number(value))
    kernel = model.trainable_variables[0]
    return [values, *(v.value.detach().numpy() for v in (kernel, loss.prototypes))]


SHARDED = ("ArcFace", "CosFace", "ProxyNCA", "NormalizedSoftmax", "SphereFace", "P2SGrad")


def sharded_loss(name: str) -> Any:
    made = {"ArcFace": {"scale": 4.0, "sub_centers": 1}, "CosFace": {"scale": 4.0}}
    return getattr(losses, f"{name}Loss")(7, 4, shard_classes=True, **made.get(name, {}))


def shards(rank: int) -> list[Any]:
    return [of_shards(sharded_loss(name), rank, 2) for name in SHARDED]


def test_classes_sharded_over_ranks_train_as_in_one_process(answers: list) -> None:
    on_each = [rank["shards"] for rank in answers]
    for i, name in enumerate(SHARDED):
        values, kernel, prototypes = of_shards(sharded_loss(name), 0, 1)
        for rank in on_each:
            assert_close(rank[i][0], values, 1e-5, f"losses of {name}")
            assert_close(rank[i][1], kernel, 1e-5, f"kernel of {name}")
        held = np.concatenate([rank[i][2] for rank in on_each])
        assert_close(held, prototypes, 1e-5, f"prototypes of {name}")


def ways(rank: int, size: int = 2) -> dict[str, list[float]]:
    """Losses of three steps by each way to train on several ranks."""
    import torch
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    from torch.utils.checkpoint import checkpoint

    y, x = batch(12)
    own = slice(rank * 12 // size, (rank + 1) * 12 // size)
    y, x = torch.tensor(y[own]), torch.tensor(x[own])
    loss = losses.SupConLoss(normalize=True)

    def network() -> Any:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))

    def trained(model: Any, step: Callable[[Any], Any], combine: Any = None) -> list[float]:
        optimizer, values = torch.optim.SGD(model.parameters(), lr=0.1), []
        for _ in range(3):
            optimizer.zero_grad()
            values.append(number(step(model)))
            if combine:
                combine(model)
            optimizer.step()
        return values

    def backward(value: Any) -> Any:
        value.backward()
        return value.detach()

    def plain(model: Any) -> Any:
        return backward(loss(y, model(x)))

    def accumulated(model: Any) -> Any:
        return sum(backward(loss(y, model(x * scale)) / 2) for scale in (1.0, 2.0))

    def in_chunks(model: Any) -> Any:
        parts = [checkpoint(model, part, use_reentrant=False) for part in x.split(3)]
        return backward(loss(y, torch.cat(parts)))

    def summed(model: Any) -> Any:  # divides by the ranks, as its loop adds gradients up
        return backward(loss(y, model(x)) / size) * size

    def add_up(model: Any) -> None:
        for parameter in model.parameters() if size > 1 else ():
            dist.all_reduce(parameter.grad)

    def ddp() -> Any:
        model = network()
        return torch.nn.parallel.DistributedDataParallel(model) if size > 1 else model

    def fsdp() -> Any:
        model = network()
        if size > 1:
            mesh = dist.init_device_mesh("cpu", (size,))
            for part in (model[0], model[2], model):
                fully_shard(part, mesh=mesh)
        return model

    return {
        "ddp": trained(ddp(), plain),
        "accumulated": trained(ddp(), accumulated),
        "chunks": trained(ddp(), in_chunks),
        "summed": trained(network(), summed, add_up),
        "fsdp": trained(fsdp(), plain),
    }


def test_every_way_to_train_gives_the_steps_of_one_process(answers: list) -> None:
    alone = ways(0, 1)
    for rank in answers:
        for name, values in alone.items():
            assert_close(rank["ways"][name], values, 1e-5, name)


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
        ("settings", "agree on the settings of the loss. Rank 0 has {"),
        ("sizes", "the size of the embeddings. Rank 0 has 4, and rank 1 has 5."),
        ("dtypes", "the dtype of the embeddings. Rank 0 has float32, and rank 1 has float64."),
        ("kinds", "the loss. Rank 0 has CircleLoss, and rank 1 has TripletLoss."),
    ],
)
def test_ranks_that_disagree(check: str, message: str, answers: list) -> None:
    for found in (rank[check] for rank in answers):
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


def test_without_reduction_each_rank_has_its_own_anchors(answers: list) -> None:
    y, x = batch(8)
    alone = losses.TripletLoss(reduction="none")(np.tile(y, 2), np.tile(x, (2, 1)))
    expected = np.asarray(alone).reshape(2, 8).tolist()
    assert [rank["equal_batches"] for rank in answers] == expected
