"""Computes `pml_arguments.npz` with pytorch-metric-learning: python tools/golden_pml_arguments.py

Its losses with other distances, reducers, options and pairs of a miner; its regularizers and
miners. Float64,
gradients with respect to the embeddings (dx) and references (dref). ClassWeightedReducer is left
out where the peer multiplies losses [n, 1] by weights [n], which is n x n products.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers

N, D, M, CLASSES = 12, 5, 7, 4

DISTANCES = {
    "lp1": ("LpDistance", {"p": 1}),
    "lp3": ("LpDistance", {"p": 3, "power": 2}),
    "raw": ("LpDistance", {"normalize_embeddings": False}),
    "square": ("LpDistance", {"power": 2}),
    "cosine": ("CosineSimilarity", {}),
    "dot": ("DotProductSimilarity", {"normalize_embeddings": False}),
    "snr": ("SNRDistance", {}),
}
REDUCERS = {
    "mean": ("MeanReducer", {}),
    "sum": ("SumReducer", {}),
    "above 0": ("AvgNonZeroReducer", {}),
    "threshold": ("ThresholdReducer", {"low": 0.1, "high": 1.2}),
    "classes": ("ClassWeightedReducer", {"weights": [0.5, 1.0, 2.0, 0.1]}),
    "anchors": ("PerAnchorReducer", {}),
    "several": (
        "MultipleReducers",
        {"reducers": {"pos_loss": "MeanReducer", "loss": "SumReducer"}},
    ),
}
COLUMNS = {  # whose losses are [n, 1]
    "MultiSimilarityLoss", "GeneralizedLiftedStructureLoss", "CircleLoss", "TupletMarginLoss",
    "AngularLoss", "LiftedStructureLoss",
}  # fmt: skip
OPTIONS = {
    "ContrastiveLoss": {"pos_margin": 0.1, "neg_margin": 0.9},
    "MultiSimilarityLoss": {"beta": 5},
    "SupConLoss": {"temperature": 0.5},
    "NTXentLoss": {"temperature": 0.5},
    "GeneralizedLiftedStructureLoss": {},
    "NCALoss": {},
    "TripletMarginLoss": {},
    "MarginLoss": {},
}
MINED = ("pairs", "triplets")
REGULARIZERS = [
    ("LpRegularizer", {}),
    ("LpRegularizer", {"p": 1, "power": 2}),
    ("CenterInvariantRegularizer", {}),
    ("ZeroMeanRegularizer", {}),
    ("RegularFaceRegularizer", {}),
    ("SparseCentersRegularizer", {"num_classes": 4, "centers_per_class": 3}),
]

MINERS = [
    ("PairMarginMiner", {"pos_margin": 0.6, "neg_margin": 1.1}, None),
    ("PairMarginMiner", {"pos_margin": 0.6, "neg_margin": 0.2}, "cosine"),
    ("MultiSimilarityMiner", {}, None),
    ("MultiSimilarityMiner", {"epsilon": 0.2}, "square"),
    ("BatchHardMiner", {}, None),
    ("BatchHardMiner", {}, "cosine"),
    *(
        ("BatchEasyHardMiner", {"pos_strategy": one, "neg_strategy": other, **allowed}, distance)
        for one in ("hard", "semihard", "easy", "all")
        for other in ("hard", "semihard", "easy", "all")
        if {one, other} not in ({"semihard"}, {"semihard", "all"})
        for distance in (None, "cosine")
        for allowed in ({}, {"allowed_pos_range": [0.3, 1.5], "allowed_neg_range": [0.2, 1.2]})
    ),
    *(("TripletMarginMiner", {"type_of_triplets": kind}, None) for kind in ("all", "easy")),
    *(("TripletMarginMiner", {"type_of_triplets": kind}, "dot") for kind in ("hard", "semihard")),
    ("AngularMiner", {"angle": 35}, None),
    ("HDCMiner", {"filter_percentage": 0.3}, "snr"),  # no two pairs alike
]

WITH_WEIGHTS = [
    ("ArcFaceLoss", {"scale": 8}, 1),
    ("CosFaceLoss", {"scale": 8}, 1),
    ("NormalizedSoftmaxLoss", {"temperature": 0.5}, 1),
    ("SphereFaceLoss", {}, 1),
    ("LargeMarginSoftmaxLoss", {}, 1),
    ("SubCenterArcFaceLoss", {"scale": 8, "sub_centers": 2}, 2),
    ("ProxyNCALoss", {"softmax_scale": 3}, 1),
    ("ProxyAnchorLoss", {"alpha": 8}, 1),
    ("SoftTripleLoss", {"centers_per_class": 2}, 2),
]


def wanted() -> list[dict[str, Any]]:
    """What is computed: losses, and what differs from their defaults."""
    found: list[dict[str, Any]] = []

    def add(loss: str, kwargs: dict[str, Any] | None = None, **other: Any) -> None:
        if loss not in COLUMNS or other.get("reducer") != "classes":
            found.append({"loss": loss, "kwargs": kwargs or {}, **other})

    for loss, kwargs in OPTIONS.items():
        of_triplets = loss in ("TripletMarginLoss", "MarginLoss")
        for distance in DISTANCES:
            add(loss, kwargs, distance=distance)
        for reducer in REDUCERS:
            if not (of_triplets and reducer == "anchors"):
                add(loss, kwargs, reducer=reducer)
        for mined in MINED:
            add(loss, kwargs, mined=mined)
            add(loss, kwargs, mined=mined, refs=True)
            add(loss, kwargs, mined=mined, distance="cosine", reducer="threshold")
            add(loss, kwargs, mined=mined, distance="raw", reducer="classes")
        add(loss, kwargs, distance="cosine", reducer="mean", refs=True)
    for loss in ("CircleLoss", "TupletMarginLoss", "SignalToNoiseRatioContrastiveLoss"):
        for reducer in REDUCERS:
            if (loss, reducer) != ("TupletMarginLoss", "anchors"):  # the peer fails
                add(loss, reducer=reducer)
        for mined in MINED:
            add(loss, mined=mined)
            add(loss, mined=mined, reducer="sum", refs=True)
    for loss, reducer in itertools.product(("AngularLoss", "LiftedStructureLoss"), ("mean", "sum")):
        add(loss, reducer=reducer)
    for distance in ("lp1", "raw", "square", "snr"):
        add("LiftedStructureLoss", distance=distance)
    for loss in ("NPairsLoss", "FastAPLoss"):
        for reducer in REDUCERS:
            add(loss, reducer=reducer)
        for mined in MINED:
            add(loss, mined=mined)
    for distance in DISTANCES:
        add("NPairsLoss", distance=distance)
    for options in ({"swap": True}, {"smooth_loss": True}, {"swap": True, "smooth_loss": True}):
        add("TripletMarginLoss", options)
        add("TripletMarginLoss", options, distance="cosine", reducer="mean")
        add("TripletMarginLoss", options, mined="triplets")
        add("TripletMarginLoss", options, mined="pairs", distance="cosine")
    learned = {"learn_beta": True, "nu": 0.1}
    for options in (
        *(learned, {**learned, "num_classes": CLASSES}),
        *({"nu": 0.3, "beta": 1.25}, {"num_classes": CLASSES, "beta": 0.75}),
    ):
        for reducer in (None, "mean", "sum", "threshold", "classes"):
            add("MarginLoss", options, reducer=reducer)
        add("MarginLoss", options, mined="triplets")
        add("MarginLoss", options, distance="cosine")
        add("MarginLoss", options, refs=True)
    for reducer in (None, "sum", "threshold", "classes"):
        add("RankedListLoss", {"margin": 0.4, "Tn": 3, "Tp": 1}, reducer=reducer)
        add("SmoothAPLoss", {"temperature": 0.1}, reducer=reducer)
        add("IntraPairVarianceLoss", reducer=reducer)
        add("InstanceLoss", {"gamma": 4}, reducer=reducer)
    add("RankedListLoss", {"margin": 0.4, "Tn": 3, "alpha": 1.4, "imbalance": 0.2})
    add("RankedListLoss", {"margin": 0.4, "Tn": 3}, distance="raw")
    add("SmoothAPLoss", {"temperature": 0.1}, mined="triplets")
    for distance in (None, "square", "raw"):
        for mined in (None, *MINED):
            add("IntraPairVarianceLoss", {"pos_eps": 0.1}, distance=distance, mined=mined)
    add("IntraPairVarianceLoss", refs=True)
    for variant in ("Ds", "Dq", "Iu", "Ib", "O"):
        add("PNPLoss", {"variant": variant, "anneal": 0.1, "alpha": 2, "b": 3})
    for mined in (None, *MINED):
        add("ThresholdConsistentMarginLoss", {"lambda_plus": 0.5, "margin_plus": 0.7}, mined=mined)
        add("HistogramLoss", {"n_bins": 10}, mined=mined)
    add("HistogramLoss", {"delta": 0.5})
    return found


def built(name: str, kwargs: dict[str, Any]) -> Any:
    """A distance or a reducer of the peer."""
    if name == "MultipleReducers":
        kwargs = {"reducers": {k: getattr(reducers, v)() for k, v in kwargs["reducers"].items()}}
    if name == "ClassWeightedReducer":
        kwargs = {"weights": torch.tensor(kwargs["weights"], dtype=torch.float64)}
    return getattr(distances if hasattr(distances, name) else reducers, name)(**kwargs)


def chosen(rng: np.random.Generator, kind: str, y: Any, ref_y: Any) -> list[np.ndarray]:
    """Some pairs or triplets, some of them twice."""
    of = y if ref_y is None else ref_y
    positive, negative = y[:, None] == of, y[:, None] != of
    if ref_y is None:
        np.fill_diagonal(positive, False)
    (a, p), (b, n) = np.nonzero(positive), np.nonzero(negative)
    some, others = rng.choice(len(a), 9), rng.choice(len(b), 14)
    if kind == "pairs":
        return [a[some], p[some], b[others], n[others]]
    far = [rng.choice(np.flatnonzero(negative[i])) for i in a[some]]
    return [a[some], p[some], np.array(far)]


def main() -> None:
    rng, table, arrays = np.random.default_rng(0), [], {}
    for at, case in enumerate(wanted()):
        y, x = rng.integers(0, CLASSES, N), 1.5 * rng.normal(size=(N, D))
        if case["loss"] == "SmoothAPLoss":  # the peer reads m examples of each of m classes in turn
            y, x = np.repeat([2, 0, 1], 3), x[:9]
        saved = {"y": y, "x": x}
        leaves = [torch.tensor(x, requires_grad=True)]
        if case.get("refs"):
            saved |= {"ref_y": rng.integers(0, CLASSES, M), "ref_x": rng.normal(size=(M, D))}
            leaves.append(torch.tensor(saved["ref_x"], requires_grad=True))
        specs = {
            "distance": DISTANCES.get(case.get("distance")),
            "reducer": REDUCERS.get(case.get("reducer")),
        }
        # What the peer makes without a dtype; MarginLoss keeps its beta in float32, as ours does.
        torch.set_default_dtype(torch.float32 if case["loss"] == "MarginLoss" else torch.float64)
        objects = {what: built(*spec) for what, spec in specs.items() if spec}
        loss = getattr(losses, case["loss"])(**case["kwargs"], **objects).double()
        mined = None
        if case.get("mined"):
            parts = chosen(rng, case["mined"], y, saved.get("ref_y"))
            saved |= {f"t{i}": part for i, part in enumerate(parts)}
            mined = tuple(torch.tensor(part) for part in parts)
        refs = (leaves[1], torch.tensor(saved["ref_y"])) if case.get("refs") else ()
        value = loss(leaves[0], torch.tensor(y), mined, *refs)
        value.backward()
        saved |= {"value": value.detach().numpy(), "dx": leaves[0].grad.numpy()}
        if len(leaves) > 1:
            saved["dref"] = leaves[1].grad.numpy()
        arrays |= {f"case{at}/{key}": array for key, array in saved.items()}
        name = {"name": f"case{at}", "refs": bool(case.get("refs"))}
        table.append({**name, "loss": case["loss"], "kwargs": case["kwargs"], **specs})
    for at, (kind, kwargs) in enumerate(REGULARIZERS):
        x = rng.normal(size=(N, D))
        leaf = torch.tensor(x, requires_grad=True)
        value = getattr(regularizers, kind)(**kwargs)(leaf)
        value.backward()
        saved = {"x": x, "value": value.detach().numpy(), "dx": leaf.grad.numpy()}
        arrays |= {f"regularizer{at}/{key}": array for key, array in saved.items()}
        table.append({"name": f"regularizer{at}", "regularizer": kind, "kwargs": kwargs})
    for at, (kind, kwargs, distance) in enumerate(MINERS):
        y, x = rng.integers(0, CLASSES, N), rng.normal(size=(N, D))
        saved = {
            "y": y,
            "x": x,
            "ref_y": rng.integers(0, CLASSES, M),
            "ref_x": rng.normal(size=(M, D)),
        }
        spec = DISTANCES.get(distance)
        miner = getattr(miners, kind)(**kwargs, **({"distance": built(*spec)} if spec else {}))
        tensors = {name: torch.tensor(array) for name, array in saved.items()}
        alone = miner(tensors["x"], tensors["y"])
        given = miner(tensors["x"], tensors["y"], tensors["ref_x"], tensors["ref_y"])
        saved |= {f"t{i}": part.numpy() for i, part in enumerate(alone)}
        saved |= {f"ref_t{i}": part.numpy() for i, part in enumerate(given)}
        arrays |= {f"miner{at}/{key}": array for key, array in saved.items()}
        name = {"name": f"miner{at}", "miner": kind, "kwargs": kwargs, "distance": spec}
        table.append(name)
    for at, (kind, kwargs, centers) in enumerate(WITH_WEIGHTS):
        loss = getattr(losses, kind)(num_classes=CLASSES, embedding_size=D, **kwargs).double()
        (w,) = loss.parameters()
        w.data = torch.tensor(rng.normal(size=tuple(w.shape)))
        y, x = rng.integers(0, CLASSES, N), rng.normal(size=(N, D))
        parts = chosen(rng, "triplets", y, None)
        leaf = torch.tensor(x, requires_grad=True)
        value = loss(leaf, torch.tensor(y), tuple(torch.tensor(part) for part in parts))
        value.backward()
        by_class = w.detach() if tuple(w.shape) == (CLASSES, D) else w.detach().T
        by_class = by_class.reshape(CLASSES, centers, D).squeeze(1).numpy()
        saved = {"y": y, "x": x, "w": by_class, "value": value.detach().numpy()}
        saved |= {"dx": leaf.grad.numpy(), **{f"t{i}": part for i, part in enumerate(parts)}}
        arrays |= {f"weights{at}/{key}": array for key, array in saved.items()}
        table.append({"name": f"weights{at}", "with_weights": kind, "kwargs": kwargs})
    for at, kwargs in enumerate(({}, {"lambdaC": 0.5, "alpha": 0.5, "margin": 0.01})):
        loss = losses.ManifoldLoss(l=D, K=CLASSES, **kwargs)
        w, x = rng.normal(size=(CLASSES, D)), rng.normal(size=(N, D))
        loss.proxies.data = torch.tensor(w)
        y, leaf = rng.integers(0, CLASSES, N), torch.tensor(x, requires_grad=True)
        value = loss(leaf, indices_tuple=torch.tensor(y))
        value.backward()
        saved = {"y": y, "x": x, "w": w, "value": value.detach().numpy(), "dx": leaf.grad.numpy()}
        arrays |= {f"manifold{at}/{key}": array for key, array in saved.items()}
        table.append({"name": f"manifold{at}", "manifold": True, "kwargs": kwargs})
    path = Path(__file__).parent.parent / "tests" / "golden" / "pml_arguments.npz"
    np.savez_compressed(path, cases=json.dumps(table), **arrays)
    print(f"{len(table)} cases: {path}")


if __name__ == "__main__":
    main()
