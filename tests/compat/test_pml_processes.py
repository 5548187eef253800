"""pytorch-metric-learning's wrappers on two processes: the numbers of one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops

from cases import batch
from kinfold.compat.pytorch_metric_learning import losses, miners
from kinfold.compat.pytorch_metric_learning.utils import distributed
from native import BACKEND, assert_close
from rank_processes import on_ranks

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="a feature of PyTorch alone")


class Own(losses.BaseMetricLossFunction):
    def compute_loss(self, x: Any, y: Any, chosen: Any, r: Any, of_references: Any) -> Any:
        mean = ops.sum(self.distance(x, r)) / (x.shape[0] * r.shape[0])
        return {"loss": {"losses": mean, "indices": None, "reduction_type": "already_reduced"}}


def numbers(rank: int, size: int = 2) -> dict[str, Any]:
    """Losses, and the gradient of what the embeddings are made by, as a mean over processes."""
    import torch

    y, x = (torch.tensor(part) for part in batch(16))
    rows = slice(rank * 16 // size, (rank + 1) * 16 // size)
    found = {}
    memory = losses.CrossBatchMemory(losses.ContrastiveLoss(), x.shape[1], memory_size=64)
    for name, loss, miner in (
        ("pairs", losses.ContrastiveLoss(), None),
        ("mined", losses.ContrastiveLoss(), miners.MultiSimilarityMiner()),
        ("triplets", losses.TripletMarginLoss(), miners.TripletMarginMiner()),
        ("own", Own(), None),
        ("memory", memory, None),
    ):
        w = torch.eye(x.shape[1], requires_grad=True)
        for _ in range(2 if name == "memory" else 1):
            embedded = x[rows] @ w
            chosen = miner and distributed.DistributedMinerWrapper(miner)(embedded, y[rows])
            value = distributed.DistributedLossWrapper(loss)(embedded, y[rows], chosen)
            value.backward()
        gradient = w.grad
        if size > 1:
            torch.distributed.all_reduce(gradient)
        found[name] = value.item(), (gradient / size).numpy()
    return found


def test_two_processes_are_as_one(tmp_path: Path) -> None:
    alone = numbers(0, 1)
    for found in on_ranks(numbers, tmp_path):
        assert isinstance(found, dict), found
        for name, (value, gradient) in alone.items():
            assert_close(found[name][0], value, 1e-5, name)
            assert_close(found[name][1], gradient, 1e-4, name)
            assert np.abs(gradient).max() > 1e-3
