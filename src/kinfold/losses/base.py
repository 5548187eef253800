"""PairLoss: what every loss over the pairs of a batch shares."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kinfold import distances, distributed
from kinfold.core import checks, pairs
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32, or_nan, unit_rows
from kinfold.losses.reduction import anchor_weights, reduced
from kinfold.losses.references import only, reference_labels, warn_unless_unit
from kinfold.streaming import roads
from kinfold.streaming.family import Family
from kinfold.streaming.problem import Part, Problem


class PairLoss(keras.losses.Loss):
    """A loss over the pairs that anchors form with references; subclass it with one equation.

    A subclass defines `per_anchor`, the loss of each anchor as a function of its row of distances.
    Anchors without a positive or without a negative are invalid: their loss and gradient are 0 and
    a mean leaves them out. Labels stay integers throughout, unlike in `keras.losses.Loss`, which
    casts them to the loss's dtype and so merges large class ids.

    Args:
        distance: a name, instance or config; see `kinfold.distances.get`.
        remove_diagonal: whether an anchor's positives leave out the reference at its own position.
        normalize: whether to scale embeddings and references to unit norm first.
        block_size: number of anchors whose distances are held at once. None chooses it, and takes
            the whole batch if that is small. The result does not depend on it.
        reduction: "sum_over_batch_size" or "mean" (over valid anchors), "sum",
            "mean_with_sample_weight" (divides by the weight of the valid anchors), "none" or None.
        name: optional name of the loss.
        dtype: dtype that embeddings are taken in and losses returned in; None means
            `keras.config.floatx()`, also for embeddings of half precision. Distances, logits and
            sums are in float32 at least.
        gather_across_devices: whether the loss of a distributed run is over the batch of all ranks,
            so that each anchor is compared with the references of all ranks; False for the loss of
            each rank's own rows.

    Raises:
        ValueError: an unknown distance or reduction.

    Example:

    >>> import keras, numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import PairLoss
    >>> @keras.saving.register_keras_serializable("docs")
    ... class FurthestPositive(PairLoss):
    ...     def per_anchor(self, distance, positive, negative):
    ...         return ops.max(ops.where(positive, distance, 0.0), axis=1)
    >>> x = np.array([[1, 0], [0, 1], [-1, 0]], "float32")
    >>> float(FurthestPositive()(np.array([7, 7, 8]), x))
    1.0
    """

    takes_references = True  # beside the batch

    def __init__(
        self,
        distance: Any = "cosine",
        remove_diagonal: bool = True,
        normalize: bool = False,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        gather_across_devices: bool = True,
    ) -> None:
        super().__init__(name=checks.text(name, "name"), reduction=reduction, dtype=dtype)
        self.distance = distances.get(distance)
        self.remove_diagonal = bool(remove_diagonal)
        self.normalize = bool(normalize)
        self.block_size = checks.block_size(block_size)
        self.gather_across_devices = bool(gather_across_devices)
        self._norms_checked = False

    def per_anchor(self, distance: Tensor, positive: Tensor, negative: Tensor) -> Any:
        """Loss of each anchor of a block, from its distances to the references.

        Args:
            distance: floating [t, m].
            positive: boolean [t, m], the anchors' positives.
            negative: boolean [t, m], the anchors' negatives.

        Returns:
            Floating [t]. Values of invalid anchors are dropped, but must be finite. For a mean
            over terms (pairs, triplets) instead of over anchors, return two values: the sum of each
            anchor's terms [t], and how many of its terms a mean counts, floating [t].

        A loss that adds `extra` to its `problem` gets it as further arguments: first the anchors'
        [t, ...], then the references' [m, ...].
        """
        raise NotImplementedError

    def family(self) -> Family | None:
        """What the loss is made of, for the roads that need more than one equation.

        With None, or with a family of another class, the loss takes the general roads.
        """
        return None

    def valid_anchors(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Which anchors of a block have a loss, boolean [t]: those with a pair of each kind."""
        return pairs.valid_anchors(positive, negative)

    def __call__(
        self,
        y_true: Any,
        y_pred: Any,
        sample_weight: Any = None,
        *,
        ref_labels: Any = None,
        ref_embeddings: Any = None,
        ref_mask: Any = None,
        memory: Part | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            y_true: integer class ids [batch] or [batch, 1]; or integers 0 and 1 [batch, labels],
                where two examples are of one kind when they share a label; or which pairs are of
                one kind, boolean [batch, m].
            y_pred: embeddings [batch, d].
            sample_weight: optional weight of each anchor, a scalar, [batch] or [batch, 1].
            ref_labels: labels of the references, [m] or [m, labels]; None means `y_true`.
            ref_embeddings: references [m, d]; None means `y_pred`.
            ref_mask: boolean [m], the references that count; None means all. The
                others are padding, for a fixed shape such as that of a memory.
            memory: further references, besides the batch or the given ones, of unit norm if the
                loss normalises; `CrossBatchMemory` fills it.

        Returns:
            A scalar, or [batch] where the reduction is "none" or None.

        Raises:
            TypeError: labels that are not integers.
            ValueError: wrong ranks, or counts that differ.
        """
        with keras.name_scope(self.name):
            references = ref_labels, ref_embeddings, ref_mask
            problem = self.problem(y_true, y_pred, *references, memory=memory)
            weights = anchor_weights(sample_weight, like=at_least_float32(problem.x[:, 0]))
            if self.reduction in (None, "none"):
                loss = self._rows(problem) * weights
            else:
                total, counted = self._weighted_sum(problem, weights)
                counted, ranks = self.counted(counted), problem.rows and problem.rows.ranks
                loss = reduced(total, counted, weights, self.reduction, ranks)
            return ops.cast(_or_nan(loss, problem), self.dtype)

    def closeness(self, distance: Tensor) -> Tensor:
        """`distance` turned so that larger means closer."""
        return distance if self.distance.similarity else -distance

    def refuse_similarity(self) -> None:
        if self.distance.similarity:
            raise ValueError(
                f"{type(self).__name__} needs a distance, where smaller is closer. "
                f"Received: distance={self.distance.name!r}, a similarity."
            )

    def counted(self, counted: Tensor) -> Tensor:
        """How much each anchor counts in a mean [batch]: its validity, or its number of terms."""
        return counted

    def call(
        self,
        y_true: Any,
        y_pred: Any,
        ref_labels: Any = None,
        ref_embeddings: Any = None,
        ref_mask: Any = None,
    ) -> Tensor:
        """Return the loss of each anchor [batch], neither weighted nor reduced."""
        problem = self.problem(y_true, y_pred, ref_labels, ref_embeddings, ref_mask)
        return ops.cast(_or_nan(self._rows(problem), problem), self.dtype)

    def _rows(self, problem: Problem) -> Tensor:
        return roads.rows(self, problem)[0]

    def _weighted_sum(self, problem: Problem, weights: Tensor) -> tuple[Tensor, Tensor]:
        return roads.weighted_sum(self, problem, weights)

    def numbers_a_pair(self, dimension: int) -> int:
        """Numbers held in memory per pair. The more there are, the fewer anchors are in a block."""
        return self.distance.numbers_a_pair(dimension)

    def problem(
        self,
        y_true: Any,
        y_pred: Any,
        ref_labels: Any = None,
        ref_embeddings: Any = None,
        ref_mask: Any = None,
        memory: Part | None = None,
    ) -> Problem:
        """Check the arguments of a call; return what is to be compared."""
        y = checks.supervision(y_true, "y_true")
        x = checks.embeddings(y_pred, "y_pred", self.dtype)
        checks.same_count(y, x, ("y_true", "y_pred"))
        if ref_embeddings is None:
            r, ref_name = x, "y_pred"
        else:
            ref_name = "ref_embeddings"
            r = checks.embeddings(ref_embeddings, ref_name, self.dtype)
            checks.same_count(x, r, ("y_pred", ref_name), axis=1)
        ref_y = reference_labels(y, ref_labels, r, ref_name)
        if self.normalize:
            unit = unit_rows(x)
            x, r = unit, unit if r is x else unit_rows(r)
        elif self.distance.needs_unit_rows and not self._norms_checked and checks.is_concrete(x):
            self._norms_checked = True
            warn_unless_unit(x)
        counts = None
        if ref_mask is not None:
            counts = checks.mask(ref_mask, r, "ref_mask", pairs.are_pairs(y))
        rows = of_references = None
        if ranks := distributed.ranks(self, x):
            facts = distributed.facts(self, y_pred, y, ref_embeddings, ref_mask, memory)
            rows, of_references = ranks.meet(facts, x, r)
            if r is x and ref_y is y:
                of_references = rows
            r, ref_y, counts = of_references.each(r, ref_y, counts)
        if ref_y is None:
            checks.columns(y, r, ("y_true", ref_name))
        if counts is not None:
            r = only(r, counts)
        batch = Part(r, ref_y, counts, offset=0, rows=of_references)
        if memory is None:
            return Problem(x, y, (batch,), rows=rows)
        checks.one_class_each(y, f"{type(self).__name__} with a memory")
        return Problem(x, y, (batch, memory), rows=rows)

    def row(
        self, distance: Tensor, positive: Tensor, negative: Tensor, *extra: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`per_anchor` with 0 for invalid anchors, and how much each counts in a mean; both [t].

        The roads call this one; override `per_anchor`.
        """
        of_row: Callable[..., Any] = self.per_anchor
        loss = of_row(distance, positive, negative, *extra)
        valid = self.valid_anchors(positive, negative)
        if not isinstance(loss, tuple):
            return ops.where(valid, loss, ops.zeros_like(loss)), valid
        total, count = (ops.where(valid, part, ops.zeros_like(part)) for part in loss)
        return total, count

    def get_config(self) -> dict[str, Any]:
        return {
            "distance": distances.serialize(self.distance),
            "remove_diagonal": self.remove_diagonal,
            "normalize": self.normalize,
            "block_size": self.block_size,
            "reduction": self.reduction,
            "name": self.name,
            "dtype": self.dtype,
            "gather_across_devices": self.gather_across_devices,
        }


def _or_nan(loss: Tensor, problem: Problem) -> Tensor:
    """`loss`, a scalar or [batch]; NaN where an embedding of this batch is not finite."""
    x, r = problem.x, problem.parts[0].embeddings
    return or_nan(loss, *((x,) if r is x else (x, r)))
