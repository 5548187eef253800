"""Triplet loss, with every way to choose positives and negatives."""

from typing import Any

import keras
from keras import ops

from kinfold import streaming
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row, count_in_row, softplus
from kinfold.losses import mining
from kinfold.losses.base import PairLoss
from kinfold.streaming import Problem
from kinfold.streaming.problem import snapshot

POSITIVES = ("hard", "easy", "all")
NEGATIVES = ("hard", "semi-hard", "easy", "all")


@keras.saving.register_keras_serializable("kinfold")
class TripletLoss(PairLoss):
    """Triplet loss: an anchor's positive nearer than its negative, by a margin.

    With the distance d, for each chosen triplet of an anchor, a positive p and a negative n:

        relu(d_p - d_n + margin),   or without a margin   log(1 + exp(d_p - d_n))

    Positives: "hard", the furthest; "easy", the nearest; "all". Negatives: "hard", the nearest;
    "semi-hard", the nearest that is further away than the positive, or the furthest where none is;
    "easy", the furthest; "all". With one triplet per anchor, a mean is over anchors; with
    all positives and a chosen negative, over pairs; with all negatives, over triplets with a loss
    above 0. Without reduction the loss of an anchor is the sum over its triplets.

    Args:
        margin: by how much a positive must be nearer, in units of the distance; None for the soft
            form.
        positives: how to choose positives.
        negatives: how to choose negatives.
        swap: whether a negative counts with its distance to the positive where that is smaller
            than the one to the anchor (the PN loss); only with one triplet per anchor.

    The other arguments are those of `PairLoss`.

    Raises:
        TypeError: the margin is not a number.
        ValueError: an unknown choice, distance or reduction; swap together with "all".

    Reference:
        Schroff et al., FaceNet, CVPR 2015, https://arxiv.org/abs/1503.03832; Hermans et al., In
        Defense of the Triplet Loss, 2017, https://arxiv.org/abs/1703.07737; swap: Taha et al.,
        2019, and Balntas et al., BMVC 2016

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import TripletLoss
    >>> x = np.array([[0, 0], [3, 4], [0, 1]], "float32")
    >>> loss = TripletLoss(margin=1.0, negatives="hard", distance="euclidean")
    >>> print(f"{float(loss(np.array([0, 0, 1]), x)):.4f}")
    3.3787
    """

    def __init__(
        self,
        margin: float | None = 0.2,
        positives: str = "hard",
        negatives: str = "semi-hard",
        swap: bool = False,
        distance: Any = "cosine",
        remove_diagonal: bool = True,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "triplet_loss",
        dtype: Any = None,
        *,
        normalize: bool = False,
        gather_across_devices: bool = True,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(distance, remove_diagonal, *shared)
        self.margin = None if margin is None else checks.number(margin, "margin")
        self.positives = checks.choice(positives, "positives", POSITIVES)
        self.negatives = checks.choice(negatives, "negatives", NEGATIVES)
        self.swap = bool(swap)
        if self.swap and "all" in (positives, negatives):
            raise ValueError(
                "TripletLoss can swap where it chooses one triplet an anchor. Received: "
                f"positives={positives!r}, negatives={negatives!r} with swap=True."
            )

    def problem(self, *args: Any, **kwargs: Any) -> Problem:
        problem = super().problem(*args, **kwargs)
        if not self.swap:
            return problem
        problem = snapshot(problem)
        parts = (part._replace(extra=(part.embeddings,)) for part in problem.parts)
        return problem._replace(parts=tuple(parts))

    def per_anchor(
        self, distance: Tensor, positive: Tensor, negative: Tensor, *extra: Tensor
    ) -> Any:
        d = -self.closeness(distance)
        if "all" in (self.positives, self.negatives):
            if self.margin is not None:
                return self._over_all(d, positive, negative)
            # The loop takes slopes as constants, which those of the soft form are not.
            fast, equation = (
                lambda *of_pairs, of=of: ops.stack(of(*of_pairs))
                for of in (self._over_all, self._at_once)
            )
            found = streaming.with_equation(fast, equation, (d,), (positive, negative))
            return found[0], ops.stop_gradient(found[1])
        p = self.chosen(d, positive)
        near = self.near(d, p, positive)
        n = mining.of_negatives(self.negatives, d, negative, self.beyond(d, near, positive))
        far = mining.at(d, n)
        for r in extra:  # to swap, the embeddings of the references
            between = self.distance.paired(ops.take(r, p, axis=0), ops.take(r, n, axis=0))
            between = -self.closeness(between)
            far = ops.where(between < far, between, far)
        return self._of_gap(near - far)

    def numbers_a_pair(self, dimension: int) -> int:
        every = "all" in (self.positives, self.negatives)
        return super().numbers_a_pair(dimension) * (2 if every else 1)

    def chosen(self, d: Tensor, positive: Tensor) -> Tensor:
        """Position [t] of the positive that each anchor takes."""
        return mining.of_positives(self.positives, d, positive)

    def near(self, d: Tensor, position: Tensor, positive: Tensor) -> Tensor:
        """Distance [t] of the positive at a position [t]."""
        return mining.at(d, position)

    def beyond(self, d: Tensor, near: Tensor, positive: Tensor) -> Tensor:
        """What a semi-hard negative lies beyond: the distance [t] of the chosen positive."""
        return near

    def _of_gap(self, gap: Tensor) -> Tensor:
        return softplus(gap) if self.margin is None else ops.relu(gap + self.margin)

    def _over_all(self, d: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over triplets and what a mean counts, one positive of each anchor after the other.

        Memory stays [t, m]: the loop gathers values and the derivative in each distance, without
        gradient, and the sum then has that gradient.
        """
        fixed = ops.stop_gradient(d)
        if self.positives != "all":
            p = mining.of_positives(self.positives, fixed, positive)
            positive = ops.logical_and(positive, mining.is_at(p, positive))
        turn = ops.cumsum(ops.cast(positive, "int32"), axis=1)
        most = ops.max(turn[:, -1])
        nothing = ops.zeros_like(d[:, 0])

        def body(k: Tensor, total: Tensor, count: Tensor, slope: Tensor) -> Any:
            is_p = ops.logical_and(positive, ops.equal(turn, k))
            some = any_in_row(is_p)
            near = ops.sum(ops.where(is_p, fixed, 0.0), axis=1)
            chosen = negative
            if self.negatives != "all":
                n = mining.of_negatives(self.negatives, fixed, negative, near)
                chosen = ops.logical_and(negative, mining.is_at(n, negative))
            chosen = ops.logical_and(chosen, ops.expand_dims(some, 1))
            gap = ops.expand_dims(near, 1) - fixed
            loss, chosen, counted = self.terms(ops.where(chosen, self._of_gap(gap), 0.0), chosen)
            pull = ops.where(chosen, self._slope(gap), 0.0)
            own = ops.expand_dims(ops.sum(pull, axis=1), 1)
            slope = slope - pull + ops.where(is_p, own, 0.0)
            more = ops.cast(count_in_row(counted), count.dtype)
            return k + 1, total + ops.sum(loss, axis=1), count + more, slope

        _, total, count, slope = ops.while_loop(
            lambda k, *_: k <= most,
            body,
            (ops.ones_like(most), nothing, nothing, ops.zeros_like(d)),
        )
        total, count, slope = (ops.stop_gradient(part) for part in (total, count, slope))
        linear = ops.sum(slope * d, axis=1)
        return total + (linear - ops.stop_gradient(linear)), count

    def _at_once(self, d: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """As `_over_all`, with all triplets held at once, [t, m, m]."""
        fixed = ops.stop_gradient(d)
        if self.positives != "all":
            p = mining.of_positives(self.positives, fixed, positive)
            positive = ops.logical_and(positive, mining.is_at(p, positive))
        t, m = ops.shape(d)
        chosen = negative = ops.repeat(negative, m, axis=0)
        if self.negatives != "all":
            rows, near = ops.repeat(fixed, m, axis=0), ops.reshape(fixed, (-1,))
            n = mining.of_negatives(self.negatives, rows, negative, near)
            chosen = ops.logical_and(negative, mining.is_at(n, negative))
        chosen = ops.logical_and(ops.reshape(chosen, (t, m, m)), ops.expand_dims(positive, 2))
        gap = ops.expand_dims(d, 2) - ops.expand_dims(d, 1)
        loss, _, counted = self.terms(ops.where(chosen, self._of_gap(gap), 0.0), chosen)
        return ops.sum(loss, axis=(1, 2)), ops.sum(ops.cast(counted, d.dtype), axis=(1, 2))

    def terms(self, loss: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The losses of triplets, which of them are in the sum, and which a mean counts."""
        return loss, chosen, chosen if self.negatives != "all" else loss > 0

    def _slope(self, gap: Tensor) -> Tensor:
        if self.margin is None:
            return ops.sigmoid(gap)
        return ops.sign(ops.relu(gap + self.margin))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "margin": self.margin,
            "positives": self.positives,
            "negatives": self.negatives,
            "swap": self.swap,
        }
