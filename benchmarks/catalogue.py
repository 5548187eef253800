"""Every loss of this package, each beside its namesakes of other packages."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks import steps
from benchmarks.losses import CLASS_SIZE, DIM, GAMMA, KERAS, MARGIN, OURS, PML, inputs

DENSE = "dense"  # written down in the backend's own operations
ON = {KERAS: ("jax", "torch", "tensorflow"), PML: ("torch",), DENSE: ("jax", "torch", "tensorflow")}

Arguments = Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]


def of_labels(y: Any, x: Any) -> Any:
    return (y, x), {}


def of_embeddings(y: Any, x: Any) -> Any:
    return (x, y.long()), {}


def of_views(y: Any, x: Any, r: Any) -> Any:
    return (x, r), {}


def of_pairs(y: Any, x: Any, r: Any) -> Any:
    return (None, x), {"ref_embeddings": r}


@dataclass(frozen=True)
class Builder:
    """Makes a loss by `module.kind(**options)`, and knows what to call it with.

    Attributes:
        by_class: whether it holds prototypes, and so takes num_classes and embedding_size too.
        arguments: turns labels and embeddings into the arguments of a call.
    """

    module: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    by_class: bool = False
    arguments: Arguments = of_labels

    def exists(self) -> bool:
        return hasattr(importlib.import_module(self.module), self.kind)

    def __call__(self, batch: int) -> "Called":
        sizes = {"num_classes": batch // CLASS_SIZE, "embedding_size": DIM} if self.by_class else {}
        kind = getattr(importlib.import_module(self.module), self.kind)
        return Called(kind(**sizes, **self.options), self.arguments)


class Called:
    """A loss of any package, called as loss(y, *parts), the parts being embeddings."""

    def __init__(self, loss: Any, arguments: Arguments) -> None:
        self.loss, self.arguments = loss, arguments
        module = getattr(loss, "parameters", list)  # a torch module's
        self.trainable_variables = getattr(loss, "trainable_variables", None) or list(module())

    def __call__(self, y: Any, *parts: Any) -> Any:
        positional, named = self.arguments(y, *parts)
        return self.loss(*positional, **named)

    def stateless_call(self, values: Any, y: Any, *parts: Any) -> Any:
        positional, named = self.arguments(y, *parts)
        return self.loss.stateless_call(values, *positional, **named)


@dataclass(frozen=True)
class Entry:
    """A loss of ours under the name that its row has, and its peers by their packages."""

    name: str
    ours: Builder
    peers: dict[str, Builder] = field(default_factory=dict)

    def beside(self, backend: str) -> list[str]:
        """The peers that run on a backend."""
        return [name for name in self.peers if backend in ON[name]]


def step(backend: str, name: str, implementation: str, batch: int) -> steps.Step:
    """Forward plus gradient of a loss of the catalogue, ours or a peer's."""
    (entry,) = (entry for entry in CATALOGUE if entry.name == name)
    builder = entry.ours if implementation == OURS else entry.peers[implementation]
    y, x = inputs(batch)
    parts = [x, others(batch)] if entry.ours.arguments in (of_views, of_pairs) else [x]
    return steps.prepare(backend, builder(batch), y, parts, gradient=True)


def others(batch: int) -> np.ndarray:
    """What the embeddings are paired with: as many more [batch, d], of unit norm."""
    x = np.random.default_rng(1).standard_normal((batch, DIM), dtype="float32")
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _ours(kind: str, peer: str = "", by_class: bool = False, **options: Any) -> Entry:
    """A loss of `kinfold.losses`, and what pytorch-metric-learning calls it."""
    shown = ", ".join(f"{name}={value!r}" for name, value in options.items())
    name = f"{kind}({shown})" if options else kind
    peers = {PML: _pml(peer, by_class)} if peer else {}
    return Entry(name, Builder("kinfold.losses", kind, options, by_class), peers)


def _pml(kind: str, by_class: bool = False) -> Builder:
    return Builder("pytorch_metric_learning.losses", kind, {}, by_class, of_embeddings)


def _views(kind: str, **options: Any) -> Entry:
    module = "kinfold.compat.tensorflow_similarity.losses"
    return Entry(f"compat {kind}", Builder(module, kind, options, arguments=of_views))


def _pairs(kind: str, dense: str, **options: Any) -> Entry:
    """A loss of paired embeddings beside the same in the backend's own operations."""
    peer = Builder("benchmarks.peers", dense, arguments=of_views)
    return Entry(kind, Builder("kinfold.losses", kind, options, arguments=of_pairs), {DENSE: peer})


_CIRCLE = {"gamma": GAMMA, "margin": MARGIN}
_MINED = {"epsilon": 0.1}
_RANKED = {"margin": 0.4, "Tn": 10}

CATALOGUE = (
    Entry(
        "CircleLoss",
        Builder("kinfold.losses", "CircleLoss", _CIRCLE),
        {KERAS: Builder("keras.losses", "Circle", _CIRCLE), PML: _pml("CircleLoss")},
    ),
    _ours("PairContrastiveLoss", "ContrastiveLoss"),
    _ours("PairContrastiveLoss", "SignalToNoiseRatioContrastiveLoss", distance="snr"),
    _ours("MultiSimilarityLoss", "MultiSimilarityLoss"),
    Entry(
        "MultiSimilarityLoss(epsilon=0.1)",
        Builder("kinfold.losses", "MultiSimilarityLoss", _MINED),
        {PML: Builder("benchmarks.peers", "mined_multi_similarity", _MINED, False, of_embeddings)},
    ),
    _ours("SupConLoss", "SupConLoss"),
    _ours("NTXentLoss", "NTXentLoss"),
    _ours("TripletLoss"),
    _ours("TripletLoss", "TripletMarginLoss", positives="all", negatives="all"),
    _ours("TupletMarginLoss", "TupletMarginLoss"),
    _ours("AngularLoss", "AngularLoss"),
    _ours("LiftedStructureLoss", "LiftedStructureLoss"),
    _ours("GeneralizedLiftedStructureLoss", "GeneralizedLiftedStructureLoss"),
    _ours("NPairsLoss", "NPairsLoss"),
    _ours("MarginLoss", "MarginLoss"),
    _ours("SoftNearestNeighborLoss", "NCALoss", distance="squared_euclidean"),
    _ours("FastAPLoss", "FastAPLoss"),
    _ours("SmoothAPLoss", "SmoothAPLoss"),
    _ours("PNPLoss", "PNPLoss"),
    Entry(
        "RankedListLoss",
        Builder("kinfold.losses", "RankedListLoss"),
        {
            PML: Builder(
                "pytorch_metric_learning.losses", "RankedListLoss", _RANKED, False, of_embeddings
            )
        },
    ),
    _ours("HistogramLoss", "HistogramLoss"),
    _ours("ThresholdConsistentMarginLoss", "ThresholdConsistentMarginLoss"),
    _ours("IntraPairVarianceLoss", "IntraPairVarianceLoss"),
    _ours("ArcFaceLoss", "ArcFaceLoss", by_class=True),
    _ours("ArcFaceLoss", "SubCenterArcFaceLoss", by_class=True, sub_centers=3),
    _ours("CosFaceLoss", "CosFaceLoss", by_class=True),
    _ours("NormalizedSoftmaxLoss", "NormalizedSoftmaxLoss", by_class=True),
    _ours("SphereFaceLoss", "SphereFaceLoss", by_class=True),
    _ours("LargeMarginSoftmaxLoss", "LargeMarginSoftmaxLoss", by_class=True),
    _ours("P2SGradLoss", by_class=True),
    _ours("ProxyAnchorLoss", "ProxyAnchorLoss", by_class=True),
    _ours("ProxyNCALoss", "ProxyNCALoss", by_class=True),
    _ours("SoftTripleLoss", "SoftTripleLoss", by_class=True),
    _pairs("InfoNCELoss", "softmax"),
    _pairs("SigLIPLoss", "sigmoid", train_scale_and_bias=False),  # as in the dense form
    _views("SimCLRLoss"),
    _views("MultiNegativesRankLoss"),
    Entry("compat PNLoss", Builder("kinfold.compat.tensorflow_similarity.losses", "PNLoss")),
    _views("Barlow"),
    _views("VicReg", reduction="sum_over_batch_size"),
    _views("SimSiamLoss"),
)
