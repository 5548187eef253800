"""Computes `pml_statistics.json` with pytorch-metric-learning, by what it collects: run this file.

What its `collect_stats=True` records, of one batch in float64.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers

PATH = Path(__file__).parent.parent / "tests" / "golden" / "pml_statistics.json"
N, D = 12, 5
# What is called, and which of its parts collects numbers.
CASES: list[dict[str, Any]] = [
    {"loss": "AngularLoss", "own": True},
    {"loss": "TupletMarginLoss", "own": True},
    {"loss": "NPairsLoss", "own": True},
    {"loss": "CosFaceLoss", "own": True, "classes": True},
    {"loss": "ArcFaceLoss", "own": True, "classes": True},
    {"loss": "SphereFaceLoss", "own": True, "classes": True},
    {"loss": "LargeMarginSoftmaxLoss", "own": True, "classes": True},
    {"loss": "SubCenterArcFaceLoss", "own": True, "classes": True},
    {"loss": "ContrastiveLoss", "distance": ["LpDistance", {}]},
    {"loss": "ContrastiveLoss", "distance": ["LpDistance", {"p": 1, "power": 2}]},
    {"loss": "CircleLoss", "distance": ["CosineSimilarity", {}]},
    {"loss": "CosFaceLoss", "distance": ["CosineSimilarity", {}], "classes": True},
    {"loss": "ContrastiveLoss", "reducer": ["AvgNonZeroReducer", {}]},
    {"loss": "ContrastiveLoss", "reducer": ["ThresholdReducer", {"low": 0.2, "high": 1.1}]},
    {"loss": "NTXentLoss", "reducer": ["MeanReducer", {}]},
    {"loss": "TripletMarginLoss", "reducer": ["ThresholdReducer", {"high": 0.3}]},
    {"loss": "MultiSimilarityLoss", "reducer": ["AvgNonZeroReducer", {}]},
    {"loss": "ArcFaceLoss", "reducer": ["ThresholdReducer", {"low": 10.0}], "classes": True},
    {"miner": "PairMarginMiner"},
    {"miner": "PairMarginMiner", "distance": ["CosineSimilarity", {}]},
    {"miner": "TripletMarginMiner"},
    {"miner": "TripletMarginMiner", "distance": ["CosineSimilarity", {}]},
    {"miner": "AngularMiner"},
    {"miner": "BatchHardMiner"},
    {"miner": "BatchEasyHardMiner", "arguments": {"pos_strategy": "easy", "neg_strategy": "hard"}},
    {
        "miner": "BatchEasyHardMiner",
        "arguments": {"pos_strategy": "all", "neg_strategy": "hard"},
        "distance": ["CosineSimilarity", {}],
    },
    {"miner": "MultiSimilarityMiner"},
    {"regularizer": "SparseCentersRegularizer"},
]


def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class ids, embeddings and prototypes [d, classes * 3]."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % 3
    return y, rng.normal(size=(N, D)) + rng.normal(size=(3, D))[y], rng.normal(size=(D, 9))


def recorded(one: Any) -> dict[str, float]:
    """The statistics among the attributes of a part, by what the peer lists as such."""
    names = getattr(one, "_record_these_stats", [])
    return {name: float(getattr(one, name)) for name in names}


def computed(case: dict[str, Any]) -> dict[str, dict[str, float]]:
    """What the peer records, by part."""
    y, x, weights = (torch.tensor(part) for part in batch())
    given: dict[str, Any] = dict(case.get("arguments", {}))
    for name, module in (("distance", distances), ("reducer", reducers)):
        if name in case:
            kind, arguments = case[name]
            given[name] = getattr(module, kind)(collect_stats=True, **arguments)
    if "miner" in case:
        miner = getattr(miners, case["miner"])(collect_stats=True, **given)
        miner(x, y)
        return {"self": recorded(miner), "distance": recorded(miner.distance)}
    if "regularizer" in case:
        regularizer = regularizers.SparseCentersRegularizer(3, 3, collect_stats=True)
        regularizer(weights.T)
        return {"self": recorded(regularizer)}
    if case.get("classes"):
        given |= {"num_classes": 3, "embedding_size": D}
    loss = getattr(losses, case["loss"])(collect_stats=bool(case.get("own")), **given)
    if case.get("classes"):
        loss.W.data = weights[:, : loss.W.shape[1]].clone()
    loss(x, y)
    parts = {"self": recorded(loss), "distance": recorded(loss.distance)}
    of_parts = getattr(loss.reducer, "reducers", {"": loss.reducer})
    parts |= {f"reducer {name}".strip(): recorded(one) for name, one in of_parts.items()}
    return {name: found for name, found in parts.items() if found}


if __name__ == "__main__":
    inputs = dict(zip(("y", "x", "weights"), (part.tolist() for part in batch()), strict=True))
    cases = [json.dumps({**case, "found": computed(case)}) for case in CASES]
    rows = ",\n".join(cases)
    PATH.write_text(f'{{"inputs": {json.dumps(inputs)},\n"cases": [\n{rows}\n]}}\n', "utf-8")
