"""PairedLoss: the base of losses for paired embeddings, such as of image and text."""

from typing import Any

import keras
from keras import ops

from kinfold import distributed, streaming
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32, or_nan, unit_rows
from kinfold.losses import several
from kinfold.losses.reduction import anchor_weights, reduced
from kinfold.losses.trainable import TrainableLoss
from kinfold.streaming import BlockSizeRule, forced


class PairedLoss(TrainableLoss):
    """A loss over pairs (x_i, r_i), where each x_i is compared with every r_j of the batch.

    A subclass defines `row`, the loss of an embedding from its row of logits, and
    `row_of_several`, the same for several partners, hard negatives and left out references.

    Args:
        positives: how many partners each embedding has. `y_pred` holds them after it, and then any
            hard negatives, which are negatives of every embedding of the batch.
        guide_margin: a guard against false negatives: references that another model, the guide,
            finds closer to an embedding than its own nearest partner, less this margin of the
            cosine, are no negatives of it. `y_true` then holds the guide's embeddings. None means
            no guard.
    """

    def __init__(
        self,
        normalize: bool,
        block_size: int | None,
        reduction: str | None,
        name: str | None,
        dtype: Any,
        gather_across_devices: bool = True,
        positives: int = 1,
        guide_margin: float | None = None,
    ) -> None:
        super().__init__(checks.text(name, "name"), reduction, dtype)
        self.positives = checks.count(positives, "positives")
        self.guide_margin = guide_margin
        if guide_margin is not None:
            self.guide_margin = checks.number(guide_margin, "guide_margin")
        self.gather_across_devices = bool(gather_across_devices)
        self.normalize = bool(normalize)
        self.block_size = checks.block_size(block_size)

    def row(self, logit: Tensor, at: Tensor) -> Tensor:
        """Loss of each embedding of a block.

        Args:
            logit: floating [t, m].
            at: integers [t], the column of each row's partner.

        Returns:
            Floating [t].
        """
        raise NotImplementedError

    def row_of_several(self, logit: Tensor, own: Tensor, negative: Tensor) -> Tensor:
        """Loss of each embedding of a block, from its partners and negatives, boolean [t, m]."""
        raise NotImplementedError

    def __call__(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, *, ref_embeddings: Any = None
    ) -> Tensor:
        """Compute the loss.

        Args:
            y_true: ignored, because the pairs say what belongs together; may be None. With
                `guide_margin`, the guide's embeddings [batch, 1 + candidates, size] of all sides.
            y_pred: an embedding, its partners and any hard negatives, [batch, 1 + candidates, d];
                or the embeddings alone [batch, d].
            sample_weight: optional weight of each pair, a scalar, [batch] or [batch, 1].
            ref_embeddings: the candidates [batch, candidates, d], or the one partner [batch, d],
                if `y_pred` holds only the embeddings.

        Returns:
            A scalar, or [batch] where the reduction is "none" or None.

        Raises:
            ValueError: wrong ranks, or counts that differ.
        """
        self._warn_if_untrained()
        with keras.name_scope(self.name):
            if self._of_several(y_pred, ref_embeddings):
                given = several.sides(self, y_true, y_pred, ref_embeddings)
                weights = anchor_weights(sample_weight, like=at_least_float32(given.x[:, 0]))
                return ops.cast(several.value(self, given, weights, y_pred), self.dtype)
            sides = self._sides(y_pred, ref_embeddings)
            weights = anchor_weights(sample_weight, like=at_least_float32(sides[0][:, 0]))
            if ranks := distributed.ranks(self, sides[0]):
                return ops.cast(self._of_ranks(ranks, sides, y_pred, weights), self.dtype)
            if self.reduction in (None, "none"):
                rows = self._fused(*sides)
                rows = self._rows(*self.wide(*sides)) if rows is None else rows
                return ops.cast(or_nan(rows * weights, *sides), self.dtype)
            total = self._fused_total(*sides, weights)
            if total is None:
                loss = self._reduced(*self.wide(*sides), weights, self.reduction)
            else:
                counted = ops.ones_like(weights, dtype="bool")
                loss = reduced(total, counted, weights, self.reduction)
            return ops.cast(or_nan(loss, *sides), self.dtype)

    def call(self, y_true: Any, y_pred: Any, ref_embeddings: Any = None) -> Tensor:
        """Return the loss of each pair [batch], neither weighted nor reduced."""
        if self._of_several(y_pred, ref_embeddings):
            given = several.sides(self, y_true, y_pred, ref_embeddings)
            return ops.cast(several.value(self, given, None, y_pred), self.dtype)
        sides = self._sides(y_pred, ref_embeddings)
        if ranks := distributed.ranks(self, sides[0]):
            return ops.cast(self._of_ranks(ranks, sides, y_pred), self.dtype)
        rows = self._fused(*sides)
        rows = self._rows(*self.wide(*sides)) if rows is None else rows
        return ops.cast(or_nan(rows, *sides), self.dtype)

    def _of_several(self, y_pred: Any, ref_embeddings: Any) -> bool:
        """Whether there is more to compare than one partner each."""
        shape = tuple(getattr(y_pred if ref_embeddings is None else ref_embeddings, "shape", ()))
        one = 2 if ref_embeddings is None else 1
        hard = len(shape) == 3 and shape[1] is not None and shape[1] > one
        found = hard or self.positives > 1 or self.guide_margin is not None
        if found:
            forced.refuse_roads_of_pair_losses(self, "fused", "symmetric")
        return found

    def _sides(self, y_pred: Any, ref_embeddings: Any) -> tuple[Tensor, Tensor]:
        forced.refuse_roads_of_pair_losses(self, "symmetric")
        x = ops.convert_to_tensor(y_pred, dtype=self.dtype)
        if ref_embeddings is None:
            if len(checks.known_shape(x, "y_pred")) != 3 or x.shape[1] not in (None, 2):
                raise ValueError(
                    "`y_pred` must hold both sides of each pair, shape [batch, 2, d], or one side "
                    "[batch, d] with the other one in `ref_embeddings`. "
                    f"Received shape {tuple(x.shape)}."
                )
            x, r = x[:, 0], x[:, 1]
        else:
            x = checks.embeddings(x, "y_pred", self.dtype)
            r = checks.embeddings(ref_embeddings, "ref_embeddings", self.dtype)
            for axis in (0, 1):
                checks.same_count(x, r, ("y_pred", "ref_embeddings"), axis=axis)
        return x, r

    def wide(self, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides in float32 at least, so that their dot products are the logits."""
        x, r = at_least_float32(x), at_least_float32(r)
        return self._scaled(*((unit_rows(x), unit_rows(r)) if self.normalize else (x, r)))

    def _fused(self, x: Tensor, r: Tensor) -> Tensor | None:
        """Loss of each pair by the fused kernels, where they serve."""
        forced.refuse_roads_of_pair_losses(self, "fused")
        return None

    def _fused_total(self, x: Tensor, r: Tensor, weights: Tensor) -> Tensor | None:
        """The sum of the losses times weights by the fused kernels, where they serve."""
        rows = self._fused(x, r)
        return None if rows is None else ops.sum(rows * weights)

    def _scaled(self, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides so that their dot products are the logits."""
        raise NotImplementedError

    def block_of_several(
        self, x: Tensor, r: Tensor, at: Tensor, *more: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Losses of some anchors among references; see `several.Direction`."""
        guided = self.guide_margin is not None
        guide, (owner, partner, *of_references) = more[:guided], more[guided:]
        masks = several.masks(at, owner, partner, (*guide, *of_references), self.guide_margin)
        rows = self.row_of_several(x @ ops.transpose(r), *masks)
        return rows, ops.ones_like(rows, dtype="bool")

    def _rows(self, x: Tensor, r: Tensor) -> Tensor:
        return streaming.per_anchor(self._block, x, r, (self._at(x),), rule=self.rule())[0]

    def _reduced(self, x: Tensor, r: Tensor, weights: Tensor, reduction: str) -> Tensor:
        total, counted = streaming.weighted_sum(
            self._block, x, r, weights, (self._at(x),), rule=self.rule()
        )
        return reduced(total, counted, weights, reduction)

    def _of_ranks(
        self, ranks: Any, sides: tuple[Tensor, Tensor], y_pred: Any, weights: Tensor | None = None
    ) -> Tensor:
        """The loss where each rank holds some of the pairs, or, without weights, of each pair."""
        forced.refuse_roads_of_pair_losses(self, "fused")
        rows = ranks.meet(distributed.facts(self, y_pred, sides[0]), sides[0])[0]
        x, r = self.wide(*sides)
        at, rule = self._at(x) + rows.first, self.rule()
        every = [(a, rows.gathered(b)) for a, b in self.directions(x, r)]
        if weights is None or self.reduction in (None, "none"):
            found = [streaming.per_anchor(self._block, *each, (at,), rule=rule) for each in every]
        else:
            found = [
                streaming.weighted_sum(self._block, *each, weights, (at,), rule=rule)
                for each in every
            ]
        mean = or_nan(sum(part[0] for part in found) / len(found), *sides)
        if weights is None:
            return mean
        if self.reduction in (None, "none"):
            return mean * weights
        return reduced(mean, found[0][1], weights, self.reduction, ranks)

    def directions(self, x: Tensor, r: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Who looks for a partner among whom; the loss is the mean over them."""
        return [(x, r)]

    def rule(self) -> BlockSizeRule:
        return BlockSizeRule(self.block_size)

    def _block(self, x: Tensor, r: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.row(x @ ops.transpose(r), at)
        return rows, ops.ones_like(rows, dtype="bool")

    def _at(self, x: Tensor) -> Tensor:
        return ops.arange(ops.shape(x)[0], dtype="int32")

    def get_config(self) -> dict[str, Any]:
        return {
            "positives": self.positives,
            "guide_margin": self.guide_margin,
            "normalize": self.normalize,
            "block_size": self.block_size,
            "reduction": self.reduction,
            "name": self.name,
            "dtype": self.dtype,
            "gather_across_devices": self.gather_across_devices,
        }
