"""`pytorch_metric_learning.miners`, under its names: which pairs or triplets a loss is to take.

`miner(embeddings, labels)` returns positions, which a loss takes as `indices_tuple`. Distances are
looked at for a block of anchors at a time, so that memory beyond what is chosen is linear in the
batch. Embeddings must be known: a compiled step chooses in the loss itself, as
`kinfold.losses.TripletLoss(negatives="semi-hard")` does.
"""

import math
import random
from typing import Any

import numpy as np
from keras import ops

from kinfold.compat.pytorch_metric_learning import distances, triplet_miners
from kinfold.compat.pytorch_metric_learning.calls import Call
from kinfold.compat.pytorch_metric_learning.mining import BaseMiner, Chosen
from kinfold.core import checks

AngularMiner = triplet_miners.AngularMiner
DistanceWeightedMiner = triplet_miners.DistanceWeightedMiner
EmbeddingsAlreadyPackagedAsTriplets = triplet_miners.EmbeddingsAlreadyPackagedAsTriplets
TripletMarginMiner = triplet_miners.TripletMarginMiner


class PairMarginMiner(BaseMiner):
    """Positive pairs further than `pos_margin`, negative pairs nearer than `neg_margin`."""

    def __init__(self, pos_margin: float = 0.2, neg_margin: float = 0.8, **shared: Any) -> None:
        super().__init__(**shared)
        self.pos_margin, self.neg_margin = pos_margin, neg_margin

    def of_block(self, mat: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> Chosen:
        far = self.distance.margin(mat, self.pos_margin) > 0
        near = self.distance.margin(self.neg_margin, mat) > 0
        return *np.nonzero(positive & far), *np.nonzero(negative & near)

    def record(self, call: Call, chosen: Chosen) -> None:
        """Keep the mean distances of positive and of negative pairs, 0 where there is none."""
        total, count = np.zeros(2), np.zeros(2)
        for mat, *masks, _ in self.blocks(call):
            total += [mat[mask].sum(dtype="float64") for mask in masks]
            count += [mask.sum() for mask in masks]
        self.pos_pair_dist, self.neg_pair_dist = map(float, total / np.maximum(count, 1))


class MultiSimilarityMiner(BaseMiner):
    """Positives further than the nearest negative less `epsilon`, and the reverse."""

    usual_distance = distances.CosineSimilarity()

    def __init__(self, epsilon: float = 0.1, **shared: Any) -> None:
        super().__init__(**shared)
        self.epsilon = epsilon

    def of_block(self, mat: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> Chosen:
        d = self._further(mat)
        nearest = np.where(negative, d, np.inf).min(1, initial=np.inf)[:, None]
        furthest = np.where(positive, d, -np.inf).max(1, initial=-np.inf)[:, None]
        hard, close = d + self.epsilon > nearest, d - self.epsilon < furthest
        return *np.nonzero(positive & hard), *np.nonzero(negative & close)


class BatchEasyHardMiner(BaseMiner):
    """One positive and one negative of each anchor, or all of them.

    Args:
        pos_strategy, neg_strategy: "hard", "semihard", "easy" or "all". A semi-hard one lies on the
            right side of the other one, which is chosen first.
        allowed_pos_range, allowed_neg_range: the least and the largest distance that may be chosen.
    """

    HARD, SEMIHARD, EASY, ALL = "hard", "semihard", "easy", "all"

    def __init__(
        self,
        pos_strategy: str = EASY,
        neg_strategy: str = SEMIHARD,
        allowed_pos_range: tuple[float, float] | None = None,
        allowed_neg_range: tuple[float, float] | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        known = (self.HARD, self.SEMIHARD, self.EASY, self.ALL)
        self.pos_strategy = checks.choice(pos_strategy, "pos_strategy", known)
        self.neg_strategy = checks.choice(neg_strategy, "neg_strategy", known)
        both = {pos_strategy, neg_strategy}
        if both in ({self.SEMIHARD}, {self.SEMIHARD, self.ALL}):
            raise ValueError(
                '"semihard" lies beyond the one that the other strategy chooses. Received: '
                f"pos_strategy={pos_strategy!r}, neg_strategy={neg_strategy!r}."
            )
        self.allowed_pos_range, self.allowed_neg_range = allowed_pos_range, allowed_neg_range

    def of_block(self, mat: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> Chosen:
        d = self._further(mat)
        sides = {
            "p": (self.pos_strategy, _within(positive, mat, self.allowed_pos_range), -1),
            "n": (self.neg_strategy, _within(negative, mat, self.allowed_neg_range), 1),
        }
        order = "np" if self.pos_strategy == self.SEMIHARD else "pn"
        found: dict[str, Any] = {}
        for side in order:
            strategy, allowed, sign = sides[side]
            if strategy == self.ALL:
                continue
            if strategy == self.SEMIHARD:  # beyond the other one
                (other,) = found.values()
                allowed = allowed & (sign * d > sign * other[1][:, None])
            found[side] = _of_rows(d, allowed, nearest=(strategy == self.EASY) == (side == "p"))
        every = {"p": np.nonzero(positive), "n": np.nonzero(negative)}
        if len(found) == 2:
            kept = np.flatnonzero(found["p"][2] & found["n"][2])
            return kept, found["p"][0][kept], kept, found["n"][0][kept]
        for side, (at, _, some) in found.items():
            every[side] = (np.flatnonzero(some), at[some])
        return *every["p"], *every["n"]

    def record(self, call: Call, chosen: Chosen) -> None:
        """Keep the distances of the easiest and the hardest pairs and triplets that are chosen."""
        a1, p, *_, n = chosen
        a2 = chosen[-2] if len(chosen) == 4 else a1
        near, far = (self._of_pairs(call, *pairs) for pairs in ((a1, p), (a2, n)))
        sides = {"pos_pair": near, "neg_pair": -far}
        if self.ALL not in (self.pos_strategy, self.neg_strategy):
            sides["triplet"] = near - far  # as many of both
        for name, hardness in sides.items():
            sign = self._further(np.float64(-1.0 if name == "neg_pair" else 1.0))
            ends = (hardness.min(), hardness.max()) if len(hardness) else (0.0, 0.0)
            for end, value in zip(("easiest", "hardest"), ends, strict=True):
                setattr(self, f"{end}_{name}", float(value * sign))

    def _of_pairs(self, call: Call, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The distances of pairs, turned so that larger is further."""
        both = (ops.take(call.x, rows, axis=0), ops.take(call.r, columns, axis=0))
        return self._further(ops.convert_to_numpy(ops.stop_gradient(self.distance.paired(*both))))


def _within(mask: np.ndarray, mat: np.ndarray, allowed: tuple[float, float] | None) -> np.ndarray:
    return mask if allowed is None else mask & (mat >= allowed[0]) & (mat <= allowed[1])


def _of_rows(d: np.ndarray, allowed: np.ndarray, nearest: bool) -> tuple[Any, Any, Any]:
    """Where the nearest or furthest allowed one of each row lies, how far, and if there is one."""
    worst = np.inf if nearest else -np.inf
    masked = np.where(allowed, d, worst)
    at = masked.argmin(1) if nearest else masked.argmax(1)
    return at, masked[np.arange(len(d)), at], allowed.any(1)


class BatchHardMiner(BatchEasyHardMiner):
    """The furthest positive and the nearest negative of each anchor: triplets."""

    def __init__(self, **shared: Any) -> None:
        super().__init__(self.HARD, self.HARD, **shared)

    def of_block(self, mat: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> Chosen:
        a, p, _, n = super().of_block(mat, positive, negative)
        return a, p, n


class HDCMiner(BaseMiner):
    """The hardest part of all positive pairs and of all negative pairs: a list of them all."""

    def __init__(self, filter_percentage: float = 0.5, **shared: Any) -> None:
        super().__init__(**shared)
        self.filter_percentage = filter_percentage

    def choose(self, call: Call) -> Chosen:
        self._found: list[list[np.ndarray]] = [[], []]
        a, p, b, n = super().choose(call)
        near, far = (np.concatenate(part) for part in self._found)
        hardest = [
            np.argsort(order, kind="stable")[: math.ceil(self.filter_percentage * len(order))]
            for order in (-near, far)
        ]
        return a[hardest[0]], p[hardest[0]], b[hardest[1]], n[hardest[1]]

    def of_block(self, mat: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> Chosen:
        d = self._further(mat)
        self._found[0].append(d[positive])
        self._found[1].append(d[negative])
        return *np.nonzero(positive), *np.nonzero(negative)


class UniformHistogramMiner(BaseMiner):
    """Pairs drawn so that their distances are spread evenly, with replacement.

    Draws follow `keras.utils.set_random_seed`.

    Args:
        num_bins: bins between the least and the largest distance, of positives and of negatives.
        pos_per_bin, neg_per_bin: pairs drawn of a bin that has any.
    """

    def __init__(
        self, num_bins: int = 100, pos_per_bin: int = 10, neg_per_bin: int = 10, **shared: Any
    ) -> None:
        super().__init__(**shared)
        self.num_bins = checks.count(num_bins, "num_bins")
        self.pos_per_bin = checks.count(pos_per_bin, "pos_per_bin")
        self.neg_per_bin = checks.count(neg_per_bin, "neg_per_bin")

    def choose(self, call: Call) -> Chosen:
        """Look three times: for the range, for how many are in each bin, and for those drawn."""
        rng = np.random.default_rng(random.getrandbits(63))
        number = self.pos_per_bin, self.neg_per_bin
        ends, counts = [(np.inf, -np.inf)] * 2, [np.zeros(self.num_bins, int) for _ in range(2)]
        for mat, *masks, _ in self.blocks(call):
            for i, mask in enumerate(masks):
                least, most = ends[i]
                values = mat[mask]
                ends[i] = values.min(initial=least), values.max(initial=most)
        for mat, *masks, _ in self.blocks(call):
            for i, mask in enumerate(masks):
                counts[i] += np.bincount(self._bins(mat[mask], ends[i]), minlength=self.num_bins)
        wanted: list[list[Any]] = [
            [np.sort(rng.integers(0, count, number[i])) if count else [] for count in counts[i]]
            for i in range(2)
        ]
        seen = [np.zeros(self.num_bins, int) for _ in range(2)]
        found: list[list[Any]] = [[np.zeros((2, 0), int)] for _ in range(2)]
        for mat, *masks, start in self.blocks(call):
            for i, mask in enumerate(masks):
                pairs, bins = np.stack(np.nonzero(mask)), self._bins(mat[mask], ends[i])
                for k in np.unique(bins):
                    here = np.flatnonzero(bins == k)
                    ranks = np.asarray(wanted[i][k]) - seen[i][k]
                    ranks = ranks[(ranks >= 0) & (ranks < len(here))]
                    found[i].append(pairs[:, here[ranks]] + [[start], [0]])
                    seen[i][k] += len(here)
        return *np.concatenate(found[0], axis=1), *np.concatenate(found[1], axis=1)

    def _bins(self, values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
        least, most = ends
        edges = np.linspace(least, most, self.num_bins + 1) if len(values) else np.zeros(1)
        return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, self.num_bins - 1)
