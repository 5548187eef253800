"""The miners of pytorch-metric-learning that choose triplets."""

import random
from typing import Any

import numpy as np

from kinfold.compat.pytorch_metric_learning import distances, tuples
from kinfold.compat.pytorch_metric_learning.calls import Call
from kinfold.compat.pytorch_metric_learning.mining import BaseMiner, Chosen
from kinfold.core import checks


class TripletMarginMiner(BaseMiner):
    """Triplets by how much further the negative is.

    Args:
        margin: triplets with at most this are chosen.
        type_of_triplets: "all" of these; "hard", where the negative is no further; "semihard", the
            others of them; "easy", those that are none of them.
    """

    def __init__(self, margin: float = 0.2, type_of_triplets: str = "all", **shared: Any) -> None:
        super().__init__(**shared)
        self.margin = margin
        known = ("all", "hard", "semihard", "easy")
        self.type_of_triplets = checks.choice(type_of_triplets, "type_of_triplets", known)

    def of_block(self, mat: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> Chosen:
        found = [_of_anchor(i, *row, self._chosen) for i, row in enumerate(zip(
            self._further(mat), positive, negative, strict=True
        ))]  # fmt: skip
        return tuple(np.concatenate(part) for part in zip(*found, strict=True))

    def record(self, call: Call, chosen: Chosen) -> None:
        """Keep the means of both distances over all triplets, and by how much they differ."""
        near = far = count = 0.0
        for mat, positive, negative, _ in self.blocks(call):
            of_positive, of_negative = positive.sum(1), negative.sum(1)
            near += ((mat * positive).sum(1, dtype="float64") * of_negative).sum()
            far += ((mat * negative).sum(1, dtype="float64") * of_positive).sum()
            count += (of_positive * of_negative).sum()
        self.pos_pair_dist, self.neg_pair_dist = near / count, far / count
        gap = self.neg_pair_dist - self.pos_pair_dist
        self.avg_triplet_margin = float(self._further(gap))

    def _chosen(self, near: np.ndarray, far: np.ndarray) -> np.ndarray:
        gap = far - near
        if self.type_of_triplets == "easy":
            return gap > self.margin
        chosen = gap <= self.margin
        if self.type_of_triplets == "hard":
            chosen &= gap <= 0
        if self.type_of_triplets == "semihard":
            chosen &= gap > 0
        return chosen


def _of_anchor(
    i: int, d: np.ndarray, positive: np.ndarray, negative: np.ndarray, rule: Any
) -> Chosen:
    """The triplets of anchor i that a rule of both distances takes."""
    p, n = np.flatnonzero(positive), np.flatnonzero(negative)
    at_p, at_n = np.nonzero(rule(d[p][:, None], d[n]))
    return np.full(len(at_p), i), p[at_p], n[at_n]


class DistanceWeightedMiner(BaseMiner):
    """Negatives drawn so that their distances are spread evenly: as many of an anchor as positives.

    Draws follow `keras.utils.set_random_seed`.

    Args:
        cutoff: nearer ones are drawn as if they were this far.
        nonzero_loss_cutoff: those that are further are not drawn.

    Reference:
        Wu et al., Sampling Matters in Deep Embedding Learning, ICCV 2017,
        https://arxiv.org/abs/1706.07567
    """

    def __init__(
        self, cutoff: float = 0.5, nonzero_loss_cutoff: float = 1.4, **shared: Any
    ) -> None:
        super().__init__(**shared)
        self.cutoff, self.nonzero_loss_cutoff = cutoff, nonzero_loss_cutoff

    def choose(self, call: Call) -> Chosen:
        self._dimension, self._own = call.x.shape[1], call.same_labels
        self._rng = np.random.default_rng(random.getrandbits(63))
        return super().choose(call)

    def of_block(self, mat: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> Chosen:
        d = np.maximum(mat.astype("float64"), self.cutoff)
        with np.errstate(divide="ignore", invalid="ignore"):
            log = (2 - self._dimension) * np.log(d)
            log -= (self._dimension - 3) / 2 * np.log(1 - d**2 / 4)
        allowed = negative & np.isfinite(log) & (d < self.nonzero_loss_cutoff)
        found: list[Any] = []
        for i in np.flatnonzero(positive.any(1) & allowed.any(1)):
            p, n = np.flatnonzero(positive[i]), np.flatnonzero(allowed[i])
            weight = np.exp(log[i, n] - log[i, n].max())
            count = len(p) + self._own  # the peer counts the anchor among its class
            drawn = self._rng.choice(n, count, p=weight / weight.sum())
            found += [[i, j, k] for j, k in zip(self._rng.choice(p, count), drawn, strict=True)]
        return tuple(np.array(found, "int64").reshape(-1, 3).T)


class AngularMiner(BaseMiner):
    """Triplets whose angle at the negative is large: the angle of AngularLoss.

    Args:
        angle: triplets with a larger one are chosen, in degrees.
    """

    def __init__(self, angle: float = 20, **shared: Any) -> None:
        super().__init__(**shared)
        usual = isinstance(self.distance, distances.LpDistance) and self.distance.p == 2
        if not usual or self.distance.power != 1 or not self.distance.normalize_embeddings:
            raise ValueError(
                f"AngularMiner is written for LpDistance(). Received: {self.distance.name}."
            )
        self.angle = np.radians(angle)

    def choose(self, call: Call) -> Chosen:
        self._x = tuples.known(call.x, "embeddings").astype("float64")
        self._r = tuples.known(call.r, "embeddings").astype("float64")
        self._first = 0
        return super().choose(call)

    def of_block(self, mat: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> Chosen:
        found = [self._of(i, *rows) for i, rows in enumerate(zip(positive, negative, strict=True))]
        self._first += len(mat)
        return tuple(np.concatenate(part) for part in zip(*found, strict=True))

    def _of(self, i: int, positive: np.ndarray, negative: np.ndarray) -> Chosen:
        p, n, angles = self._angles(i, positive, negative)
        at_p, at_n = np.nonzero(angles > self.angle)
        return np.full(len(at_p), i), p[at_p], n[at_n]

    def _angles(self, i: int, positive: np.ndarray, negative: np.ndarray) -> Chosen:
        """The positives and the negatives of anchor i, and the angles [positives, negatives]."""
        p, n = np.flatnonzero(positive), np.flatnonzero(negative)
        anchor = self._x[self._first + i]
        side = np.linalg.norm(anchor - self._r[p], axis=1)
        centres = (anchor + self._r[p]) / 2
        away = np.stack([np.linalg.norm(self._r[n] - centre, axis=1) for centre in centres] or [n])
        with np.errstate(divide="ignore", invalid="ignore"):
            angles = np.arctan(side[:, None] / (2 * away[: len(p)]))
        return p, n, angles

    def record(self, call: Call, chosen: Chosen) -> None:
        """Keep numbers of the angles of all triplets, in degrees."""
        found = [np.empty(0)]
        for _, positive, negative, start in self.blocks(call):
            self._first = start
            rows = enumerate(zip(positive, negative, strict=True))
            found += [self._angles(i, *masks)[2].ravel() for i, masks in rows]
        angles = np.degrees(np.concatenate(found))
        above = angles > np.degrees(self.angle)
        for name, part, of in (
            ("average_angle", angles, np.mean),
            ("min_angle", angles, np.min),
            ("max_angle", angles, np.max),
            ("average_angle_above_threshold", angles[above], np.mean),
            ("average_angle_below_threshold", angles[~above], np.mean),
        ):
            setattr(self, name, float(of(part)) if len(part) else 0.0)
        self.std_of_angle = float(angles.std(ddof=1)) if len(angles) > 1 else 0.0


class EmbeddingsAlreadyPackagedAsTriplets(BaseMiner):
    """The batch holds triplets one after the other: anchor, positive, negative."""

    def choose(self, call: Call) -> Chosen:
        if (n := call.x.shape[0]) % 3:
            raise ValueError(f"A batch of triplets must hold three examples each. Received {n}.")
        return tuple(np.arange(first, n, 3) for first in range(3))
