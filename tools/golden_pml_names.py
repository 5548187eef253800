"""Computes `pml_names.npz` with pytorch-metric-learning: python tools/golden_pml_names.py

The logits and the gradients of the weights of its losses, its memory over three batches, a miner's
pairs of angular and lifted structure losses, VICReg, dynamic soft margin, and the numbers of its
AccuracyCalculator. Float64, but what FAISS finds.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

N, D, CLASSES = 12, 5, 4
WEIGHTS = [
    ("ArcFaceLoss", {"scale": 8}),
    ("CosFaceLoss", {"scale": 8}),
    ("NormalizedSoftmaxLoss", {"temperature": 0.5}),
    ("SphereFaceLoss", {}),
    ("LargeMarginSoftmaxLoss", {"scale": 0.5}),
    ("SubCenterArcFaceLoss", {"scale": 8, "sub_centers": 2}),
    ("ProxyNCALoss", {"softmax_scale": 3}),
    ("ProxyAnchorLoss", {"alpha": 8}),
    ("SoftTripleLoss", {"centers_per_class": 2}),
    ("SoftTripleLoss", {"centers_per_class": 1}),
    ("P2SGradLoss", {}),
    ("NormalizedSoftmaxLoss", {"temperature": 0.5, "distance": "LpDistance"}),
]
PAIRS = [
    *(
        (kind, reducer)
        for kind in ("AngularLoss", "LiftedStructureLoss")
        for reducer in (None, "SumReducer")
    ),
    ("AngularLoss", "ThresholdReducer"),
]
MEMORIES = [
    ("ContrastiveLoss", None),
    ("TripletMarginLoss", None),
    ("MarginLoss", None),
    ("NTXentLoss", None),
    ("NCALoss", None),
    ("LiftedStructureLoss", None),
    ("ContrastiveLoss", "MultiSimilarityMiner"),
    ("TripletMarginLoss", "TripletMarginMiner"),
]
ACCURACIES: list[dict[str, Any]] = [
    {},
    {"avg_of_avgs": True},
    {"return_per_class": True},
    {"k": 3},
    {"k": "max_bin_count"},
    {"refs": True},
    {"refs": True, "own": True},
]


def main() -> None:
    rng, table, arrays = np.random.default_rng(1), [], {}

    def add(case: dict[str, Any], **saved: Any) -> None:
        name = f"case{len(table)}"
        table.append({"name": name, **case})
        for key, array in saved.items():
            array = array.detach().numpy() if torch.is_tensor(array) else array
            arrays[f"{name}/{key}"] = array

    def leaf(*shape: int) -> Any:
        return torch.tensor(rng.normal(size=shape), requires_grad=True)

    for kind, kwargs in WEIGHTS:
        given = {k: getattr(distances, v)() if k == "distance" else v for k, v in kwargs.items()}
        size = {"descriptors_dim" if kind == "P2SGradLoss" else "embedding_size": D}
        loss = getattr(losses, kind)(num_classes=CLASSES, **size, **given).double()
        (w,) = loss.parameters()
        w.data = torch.tensor(rng.normal(size=tuple(w.shape)))
        x, y, first = leaf(N, D), torch.tensor(rng.integers(0, CLASSES, N)), w.detach().clone()
        value = loss(x, y)
        value.backward()
        more = {"logits": loss.get_logits(x)} if hasattr(loss, "get_logits") else {}
        saved = {"x": x, "y": y, "w": first, "value": value, "dx": x.grad, "dw": w.grad}
        add({"weights": kind, "kwargs": kwargs}, **saved, **more)
    for kind, reducer in PAIRS:
        given = {"ThresholdReducer": {"low": 0.3}}.get(reducer, {})
        loss = getattr(losses, kind)(reducer=reducer and getattr(reducers, reducer)(**given))
        x, y = leaf(N, D), torch.tensor(rng.integers(0, CLASSES, N))
        chosen = miners.PairMarginMiner(0.4, 1.3)(x, y)
        value = loss(x, y, chosen)
        value.backward()
        mined = {f"t{i}": part for i, part in enumerate(chosen)}
        case = {"pairs": kind, "reducer": reducer, "kwargs": given}
        add(case, x=x, y=y, value=value, dx=x.grad, **mined)
    for kind, miner in MEMORIES:
        loss = getattr(losses, kind)()
        given = {"miner": getattr(miners, miner)()} if miner else {}
        memory = losses.CrossBatchMemory(loss, D, memory_size=2 * N + 3, **given)
        xs, ys, values, gradients = [], [], [], []
        for _ in range(4):
            x, y = leaf(N, D), torch.tensor(rng.integers(0, CLASSES, N))
            value = memory(x, y)
            value.backward()
            for kept, one in zip((xs, ys, values, gradients), (x, y, value, x.grad), strict=True):
                kept.append(one.detach().numpy())
        add({"memory": kind, "miner": miner}, x=xs, y=ys, value=values, dx=gradients)
    for reducer in (None, "SumReducer"):
        kwargs = {"invariance_lambda": 5, "variance_mu": 3, "covariance_v": 2, "eps": 1e-3}
        loss = losses.VICRegLoss(**kwargs, reducer=reducer and getattr(reducers, reducer)())
        x, r = leaf(N, D), leaf(N, D)
        value = loss(x, ref_emb=r)
        value.backward()
        add({"vicreg": kwargs, "reducer": reducer}, x=x, r=r, value=value, dx=x.grad, dr=r.grad)
    for labelled in (True, False):
        loss = losses.DynamicSoftMarginLoss(num_bins=8)
        x, r, y = leaf(N, D), leaf(N, D), torch.tensor(rng.integers(0, CLASSES, N))
        value = loss(x, y) if labelled else loss(x, ref_emb=r)
        more = {}
        if labelled:  # without, the peer's backward pass fails
            value.backward()
            more = {"dx": x.grad}
        add({"soft_margin": labelled}, x=x, r=r, y=y, value=value, hist=loss.hist_, **more)
    for case in ACCURACIES:
        kwargs = {k: v for k, v in case.items() if k not in ("refs", "own")}
        calculator = AccuracyCalculator(**kwargs, device=torch.device("cpu"))
        x, r = (
            rng.normal(size=(40, 6)).astype("float32"),
            rng.normal(size=(30, 6)).astype("float32"),
        )
        y, of_references = rng.integers(0, 7, 40), rng.integers(1, 8, 30)
        y[0] = 20  # a class of its own
        refs: tuple[Any, ...] = ()
        if case.get("own"):
            r, of_references = np.concatenate([x, r]), np.concatenate([y, of_references])
        if case.get("refs"):
            refs = r, of_references, bool(case.get("own"))
        found = calculator.get_accuracy(x, y, *refs)
        add({"accuracy": kwargs, "refs": len(refs), "own": bool(case.get("own")), "found": found},
            x=x, y=y, r=r, ref_y=of_references)  # fmt: skip
    path = Path(__file__).parent.parent / "tests" / "golden" / "pml_names.npz"
    np.savez_compressed(path, cases=json.dumps(table), **arrays)
    print(f"{len(table)} cases: {path}")


if __name__ == "__main__":
    main()
