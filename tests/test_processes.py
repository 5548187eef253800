"""Several processes of torch.distributed: what needs the whole batch refuses a part of it."""

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases import batch
from kinfold import CrossBatchMemory, losses
from kinfold.compat import tensorflow_similarity as tfsim
from kinfold.compat.pytorch_metric_learning import losses as pml
from native import BACKEND

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="a feature of PyTorch alone")


def calls() -> dict[str, Any]:
    y, x = batch(6, d=4)
    found = {
        "circle": lambda: losses.CircleLoss()(y, x),
        "memory": lambda: CrossBatchMemory(losses.CircleLoss(), 4, 4)(y, x),
        "info_nce": lambda: losses.InfoNCELoss()(None, x, ref_embeddings=x),
        "proxy_anchor": lambda: losses.ProxyAnchorLoss(5, 4)(y, x),
        "pml": lambda: pml.SupConLoss()(x, y),
    }
    for name in ("SimCLRLoss", "Barlow", "VicReg", "MultiNegativesRankLoss"):
        found[name] = lambda name=name: getattr(tfsim.losses, name)()(x, x)
    return found


def process(rank: int, size: int, path: str, answers: Any) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=size)
    refused = []
    for name, call in calls().items():
        try:
            call()
        except NotImplementedError as error:
            refused += [name] * (f"one of {size} processes of torch.distributed" in str(error))
    arc_face = losses.ArcFaceLoss(5, 4)
    assert arc_face.trainable_variables
    y, x = batch(6, d=4)
    assert np.isfinite(float(arc_face(y, x).detach()))  # compares no two examples
    answers.put(refused)
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:Nothing trains the variables")
def test_a_group_of_one_process_is_the_whole_batch(tmp_path: Path) -> None:
    import queue

    answers: Any = queue.Queue()
    process(0, 1, str(tmp_path / "group"), answers)
    assert answers.get() == []


def test_a_group_of_two_is_refused(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    both = [
        context.Process(target=process, args=(rank, 2, str(tmp_path / "group"), answers))
        for rank in (0, 1)
    ]
    for one in both:
        one.start()
    found = [answers.get(timeout=120) for _ in both]
    for one in both:
        one.join()
    assert found == [list(calls())] * 2
