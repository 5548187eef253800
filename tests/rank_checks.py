"""What several ranks compute together and one process computes alone: the same numbers.

A check is a loss and the global batch that it is given. `rank_worker.py` computes it on each rank's
share; the tests compute it on the whole.
"""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from keras import ops

from cases import CASES, FORMS, batch
from kinfold import losses
from native import BACKEND

# Uneven on PyTorch. On JAX every device would then compute all, and TensorFlow would compile loops
# for each, as it does in the checks with an empty rank.
ROWS, REFERENCES = {"jax": (12, 15), "tensorflow": (12, 16), "torch": (13, 17)}[BACKEND]
# PyTorch computes all of them in seconds; the others compile each, and take a part of them unless
# asked for all.
EVERY = BACKEND == "torch" or "KINFOLD_TEST_EVERY" in os.environ


@dataclass(frozen=True)
class Check:
    """A loss of the arrays `grad`, which get gradients, with `data`, all cut by rows."""

    build: Callable[[], Any]
    grad: dict[str, np.ndarray]
    data: dict[str, np.ndarray] = field(default_factory=dict)
    empty: bool = False  # whether the last rank has no rows
    road: str | None = None  # that the ranks take

    def call(self, loss: Any, grad: dict[str, Any], data: dict[str, Any]) -> Any:
        given = {**grad, **data}
        x, y = given.pop("x"), given.pop("y", None)
        return loss(y, x, given.pop("weights", None), **given)


def checks() -> dict[str, Check]:
    """Every check by its name."""
    rows = ROWS
    y, x = batch(rows)
    ref_y, ref_x = batch(REFERENCES, seed=1)
    weights = np.linspace(0.5, 2.0, rows, dtype="float32")
    mask = np.arange(REFERENCES) % 4 != 1
    found = {}

    def add(name: str, build: Any, grad: Any = None, **data: Any) -> None:
        more = {key: data.pop(key) for key in ("empty", "road") if key in data}
        found[name] = Check(build, grad or {"x": x}, {"y": y, **data}, **more)

    def made(case: Any, **kwargs: Any) -> Any:
        return lambda: case.build(**kwargs)

    references = {"x": x, "ref_embeddings": ref_x}
    for case in CASES:
        add(f"{case}-weights", made(case), weights=weights)
        if case in FORMS or EVERY:
            beside = {"ref_labels": ref_y, "ref_mask": mask}
            add(f"{case}-references", made(case), references, **beside)
    for case in FORMS if EVERY else FORMS[:2]:
        for reduction in ("sum", "mean_with_sample_weight", "none"):
            add(f"{case}-{reduction}", made(case, reduction=reduction), weights=weights)
        add(f"{case}-blocks", made(case, block_size=3))
        add(f"{case}-empty", made(case), empty=True)
        add(f"{case}-empty-blocks", made(case, block_size=3), empty=True)
        keeps = made(case, remove_diagonal=False, normalize=True)
        add(f"{case}-diagonal", keeps, {"x": x * 3})
        doubled = {name: a.astype("float64") for name, a in references.items()}
        add(f"{case}-float64", made(case, dtype="float64"), doubled, ref_labels=ref_y)
    if BACKEND != "tensorflow":  # which has no kernels
        for case in CASES:
            if case.name in ("circle", "sup_con", "soft_nearest_neighbor")[: 3 if EVERY else 1]:
                add(f"{case}-fused", made(case), weights=weights, road="fused")
                beside = {"ref_labels": ref_y, "road": "fused"}
                add(f"{case}-fused-references", made(case), references, **beside)
    many = (np.arange(rows * 3).reshape(rows, 3) % 4 == 0).astype("int32")
    add("labels", losses.CircleLoss, y=many)
    for whole in ("Histogram", "ThresholdConsistentMargin", "IntraPairVariance"):
        loss = getattr(losses, f"{whole}Loss")
        add(whole, loss, weights=weights)
        add(f"{whole}-references", loss, references, ref_labels=ref_y)
        add(f"{whole}-empty", loss, empty=True)
    add("n_pairs", losses.NPairsLoss)
    add("n_pairs-empty", losses.NPairsLoss, empty=True)
    pairs = {"x": x, "ref_embeddings": batch(rows, seed=2)[1]}
    for both in (True, False):
        made_pairs = {"both_directions": both, "train_temperature": both}
        add(f"info_nce-{both}", lambda made=made_pairs: losses.InfoNCELoss(**made), pairs)
    add("info_nce-blocks", lambda: losses.InfoNCELoss(block_size=4), pairs, weights=weights)
    add("info_nce-none", lambda: losses.InfoNCELoss(reduction="none"), pairs)
    add("info_nce-empty", losses.InfoNCELoss, pairs, empty=True)
    add("sig_lip", losses.SigLIPLoss, pairs, weights=weights)
    columns = {"x": batch(rows * 4, seed=3)[1].reshape(rows, 4, -1)}
    guide = batch(rows * 4, seed=4)[1].reshape(rows, 4, -1)
    several = {"positives": 2, "guide_margin": 0.1}
    for kind in (losses.InfoNCELoss, losses.SigLIPLoss):
        add(f"{kind.__name__}-several", lambda kind=kind: kind(**several), columns, y=guide)
    of_angles = (
        "ArcFace",
        "CosFace",
        "NormalizedSoftmax",
        "SphereFace",
        "LargeMarginSoftmax",
        "P2SGrad",
    )
    for name in (*of_angles, "ProxyNCA", "ProxyAnchor", "SoftTriple"):
        loss = getattr(losses, f"{name}Loss")
        add(name, lambda loss=loss: with_prototypes(loss(5, 8)), weights=weights)
    distances = np.linspace(0.1, 1.9, rows, dtype="float32")
    kinds = (y > 2).astype("int32")
    add("contrastive", losses.ContrastiveLoss, {"x": distances}, y=kinds, weights=weights)
    return found


def with_prototypes(loss: Any) -> Any:
    """A loss whose prototypes are the same in every process."""
    for variable in loss.trainable_variables:
        numbers = np.random.default_rng(7).normal(size=variable.shape)
        variable.assign(ops.convert_to_tensor(numbers, dtype=variable.dtype))
    return loss


def shares(count: int, world: int, empty: bool) -> list[slice]:
    """Which rows each rank holds; the first ranks hold one more where they are uneven."""
    ranks = world - empty
    sizes = [count // ranks + (rank < count % ranks) for rank in range(ranks)] + [0] * empty
    ends = np.cumsum([0, *sizes])
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def part(check: Check, rank: int, world: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of one rank."""

    def cut(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {k: a[shares(len(a), world, check.empty)[rank]] for k, a in arrays.items()}

    return cut(check.grad), cut(check.data)
