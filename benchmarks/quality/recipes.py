"""The losses that are compared, ours and pytorch-metric-learning's, both with their defaults."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.losses import OURS, PML

IMPLEMENTATIONS = (OURS, PML)

Compute = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Ours:
    """A loss of kinfold.

    Args:
        name: in `kinfold.losses`.
        arguments: those that are not left at their defaults.
        per_class: whether it learns prototypes, and so takes (classes, dimensions).
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    per_class: bool = False

    def exists(self) -> bool:
        return hasattr(importlib.import_module("kinfold.losses"), self.name)

    def build(self, classes: int, dimensions: int) -> tuple[Compute, list[Any]]:
        """Build the loss as a function of labels and embeddings, and its torch parameters."""
        make = getattr(importlib.import_module("kinfold.losses"), self.name)
        loss = make(*((classes, dimensions) if self.per_class else ()), **self.arguments)
        return loss, [variable.value for variable in getattr(loss, "trainable_variables", [])]


@dataclass(frozen=True)
class Peer:
    """A loss of pytorch-metric-learning.

    Args:
        name: in `pytorch_metric_learning.losses`.
        arguments: those that are not left at their defaults.
        per_class: whether it learns prototypes, and so takes (classes, dimensions).
        miner: one of `pytorch_metric_learning.miners` that chooses its pairs, if any.
        sizes: what it calls the classes and the dimensions.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    per_class: bool = False
    miner: str | None = None
    sizes: tuple[str, str] = ("num_classes", "embedding_size")

    def build(self, classes: int, dimensions: int) -> tuple[Compute, list[Any]]:
        """Build the loss as a function of labels and embeddings, and its torch parameters."""
        make = getattr(importlib.import_module("pytorch_metric_learning.losses"), self.name)
        sizes = dict(zip(self.sizes, (classes, dimensions), strict=True)) if self.per_class else {}
        loss = make(**sizes, **self.arguments)
        if self.miner is None:
            return lambda y, x: loss(x, y), list(loss.parameters())
        choose = getattr(importlib.import_module("pytorch_metric_learning.miners"), self.miner)()
        return lambda y, x: loss(x, y, choose(x, y)), list(loss.parameters())


def _same(name: str, per_class: bool = False) -> tuple[Ours, Peer]:
    return Ours(name, per_class=per_class), Peer(name, per_class=per_class)


# None for a loss that the peer has not.
LOSSES: dict[str, tuple[Ours, Peer | None]] = {
    "CircleLoss": _same("CircleLoss"),
    "CircleLoss(margin=0.25)": (  # the default of `kinfold train`
        Ours("CircleLoss", {"margin": 0.25}),
        Peer("CircleLoss", {"m": 0.25}),
    ),
    "PairContrastiveLoss": (Ours("PairContrastiveLoss"), Peer("ContrastiveLoss")),
    "PairContrastiveLoss(snr)": (
        Ours("PairContrastiveLoss", {"distance": "snr"}),
        Peer("SignalToNoiseRatioContrastiveLoss"),
    ),
    "MultiSimilarityLoss": _same("MultiSimilarityLoss"),
    "MultiSimilarityLoss(epsilon=0.1)": (
        Ours("MultiSimilarityLoss", {"epsilon": 0.1}),
        Peer("MultiSimilarityLoss", miner="MultiSimilarityMiner"),  # its default epsilon is 0.1
    ),
    "SupConLoss": _same("SupConLoss"),
    "NTXentLoss": _same("NTXentLoss"),
    "TripletLoss": (Ours("TripletLoss"), Peer("TripletMarginLoss")),
    "TripletLoss(all)": (  # the peer's margin and distance
        Ours(
            "TripletLoss",
            {"margin": 0.05, "positives": "all", "negatives": "all", "distance": "euclidean"},
        ),
        Peer("TripletMarginLoss"),
    ),
    "LiftedStructureLoss": _same("LiftedStructureLoss"),
    "GeneralizedLiftedStructureLoss": _same("GeneralizedLiftedStructureLoss"),
    "NPairsLoss": _same("NPairsLoss"),
    "MarginLoss": _same("MarginLoss"),
    "SoftNearestNeighborLoss(squared)": (
        Ours("SoftNearestNeighborLoss", {"distance": "squared_euclidean"}),
        Peer("NCALoss"),
    ),
    "TupletMarginLoss": _same("TupletMarginLoss"),
    "FastAPLoss": _same("FastAPLoss"),
    "SmoothAPLoss": _same("SmoothAPLoss"),
    "PNPLoss": _same("PNPLoss"),
    "RankedListLoss": (Ours("RankedListLoss"), Peer("RankedListLoss", {"margin": 0.4, "Tn": 10})),
    "HistogramLoss": _same("HistogramLoss"),
    "ThresholdConsistentMarginLoss": _same("ThresholdConsistentMarginLoss"),
    "IntraPairVarianceLoss": _same("IntraPairVarianceLoss"),
    "AngularLoss": (Ours("AngularLoss", {"alpha": 40.0}), Peer("AngularLoss")),
    "ArcFaceLoss": _same("ArcFaceLoss", per_class=True),
    "CosFaceLoss": _same("CosFaceLoss", per_class=True),
    "ArcFaceLoss(sub_centers=3)": (
        Ours("ArcFaceLoss", {"sub_centers": 3}, per_class=True),
        Peer("SubCenterArcFaceLoss", per_class=True),
    ),
    "NormalizedSoftmaxLoss": _same("NormalizedSoftmaxLoss", per_class=True),
    "SphereFaceLoss": _same("SphereFaceLoss", per_class=True),
    "LargeMarginSoftmaxLoss": _same("LargeMarginSoftmaxLoss", per_class=True),
    "P2SGradLoss": (
        Ours("P2SGradLoss", per_class=True),
        Peer("P2SGradLoss", per_class=True, sizes=("num_classes", "descriptors_dim")),
    ),
    "ProxyAnchorLoss": _same("ProxyAnchorLoss", per_class=True),
    "ProxyNCALoss": _same("ProxyNCALoss", per_class=True),
    "SoftTripleLoss": _same("SoftTripleLoss", per_class=True),
}


def jobs(names: Sequence[str], seeds: int) -> list[tuple[str, str, int]]:
    """(loss, implementation, seed) of each training; all losses with a seed before the next."""
    return [
        (name, implementation, seed)
        for seed in range(seeds)
        for name in names
        for implementation, recipe in zip(IMPLEMENTATIONS, LOSSES[name], strict=True)
        if recipe is not None
    ]
