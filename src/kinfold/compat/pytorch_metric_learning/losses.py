"""The losses of pytorch-metric-learning: `loss(embeddings, labels, ref_emb=None, ref_labels=None)`.

They are called as there, on tensors of any backend, with the peer's arguments, defaults, default
distances and default reducers, and run streamed over `kinfold.losses`.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from kinfold import distributed, losses
from kinfold.compat.pytorch_metric_learning import terms
from kinfold.core import checks
from kinfold.core.checks import Tensor

Build = Callable[..., tuple[losses.PairLoss, ...]]


class Loss:
    """A loss called as in pytorch-metric-learning; it is the sum of some losses of ours.

    Args:
        build: makes the losses, from `remove_diagonal`, `dtype` and `normalize`.
        takes_references: whether a call may pass references.
        needs_negatives: whether the loss is 0 where no pair at all is negative.
        to_references: makes the losses where references are given, if others.
    """

    def __init__(
        self,
        build: Build,
        takes_references: bool = True,
        needs_negatives: bool = False,
        to_references: Build | None = None,
    ) -> None:
        self._build, self._to_references = build, to_references or build
        self._takes_references, self._needs_negatives = takes_references, needs_negatives
        self._built: dict[tuple[bool, bool, str], tuple[losses.PairLoss, ...]] = {}

    def __call__(
        self,
        embeddings: Any,
        labels: Any,
        ref_emb: Any = None,
        ref_labels: Any = None,
        *,
        indices_tuple: Any = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            embeddings: [batch, d], of any norm.
            labels: integer class ids [batch].
            ref_emb: references [m, d]; None means the embeddings, none being its own pair.
            ref_labels: class ids [m] of the references. As there, the very object that `labels`
                is says that reference i is example i, and so no pair of it.
            indices_tuple: what a miner returned; not supported.

        Returns:
            A scalar of the backend's tensors.

        Raises:
            ValueError: only one of ref_emb and ref_labels, or references for a loss without.
            NotImplementedError: indices_tuple.
        """
        if indices_tuple is not None or isinstance(ref_emb, tuple):
            raise NotImplementedError(
                "Pairs chosen by a miner (indices_tuple) are not supported. Choose them in the "
                "loss, as kinfold.losses.TripletLoss(negatives='semi-hard') or "
                "kinfold.losses.MultiSimilarityLoss(epsilon=0.1) do."
            )
        if (ref_emb is None) != (ref_labels is None):
            raise ValueError("Pass both `ref_emb` and `ref_labels`, or neither.")
        same_labels = ref_emb is None or ref_labels is labels
        if same_labels and ref_emb is embeddings:
            ref_emb = ref_labels = None  # the batch itself
        refs = ref_emb is not None
        if refs and not self._takes_references:
            raise ValueError(f"{type(self).__name__} takes no ref_emb and ref_labels.")
        key = (refs, same_labels, checks.compute_dtype(embeddings))
        if key not in self._built:
            build = self._to_references if refs else self._build
            self._built[key] = build(remove_diagonal=same_labels, dtype=key[2], normalize=True)
        total = sum(
            part(labels, embeddings, ref_labels=ref_labels, ref_embeddings=ref_emb)
            for part in self._built[key]
        )
        if not self._needs_negatives:
            return total
        y, ref_y = (checks.labels(v, "labels") for v in (labels, ref_labels if refs else labels))
        if ranks := distributed.ranks(self._built[key][0], y):
            rows = ranks.meet({}, y, ref_y)
            y, ref_y = (of.gathered(part) for of, part in zip(rows, (y, ref_y), strict=True))
        return ops.where(_some_pair_apart(y, ref_y), total, ops.zeros_like(total))


def _some_pair_apart(y: Tensor, ref_y: Tensor) -> Tensor:
    """Whether any pair has two labels."""
    if 0 in (y.shape[0], ref_y.shape[0]):
        return ops.zeros((), dtype="bool")
    return ops.logical_or(
        ops.not_equal(ops.max(y), ops.min(ref_y)), ops.not_equal(ops.min(y), ops.max(ref_y))
    )


class CircleLoss(Loss):
    """Circle loss; see `kinfold.losses.CircleLoss` with detached weights."""

    def __init__(self, m: float = 0.4, gamma: float = 80) -> None:
        super().__init__(lambda **k: (losses.CircleLoss(gamma, m, detach_weights=True, **k),))


class ContrastiveLoss(Loss):
    """Hinges of the Euclidean distance: the mean over those of positives plus that of negatives."""

    def __init__(self, pos_margin: float = 0, neg_margin: float = 1) -> None:
        super().__init__(_hinges(pos_margin, neg_margin, "euclidean"))


class SignalToNoiseRatioContrastiveLoss(Loss):
    """`ContrastiveLoss` with the signal-to-noise distance."""

    def __init__(self, pos_margin: float = 0, neg_margin: float = 1) -> None:
        super().__init__(_hinges(pos_margin, neg_margin, "snr"))


def _hinges(near: float, far: float, distance: str) -> Build:
    return lambda **k: (
        terms.Hinges(True, float(near), distance=distance, **k),
        terms.Hinges(False, float(far), distance=distance, **k),
    )


class MultiSimilarityLoss(Loss):
    """Multi-similarity loss of all pairs; `base` is a cosine similarity."""

    def __init__(self, alpha: float = 2, beta: float = 50, base: float = 0.5) -> None:
        super().__init__(lambda **k: (terms.MultiSimilarity(alpha, beta, 1.0 - base, **k),))


class SupConLoss(Loss):
    """Supervised contrastive loss; see `kinfold.losses.SupConLoss`."""

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__(lambda **k: (terms.SupCon(temperature, **k),), needs_negatives=True)


class NTXentLoss(Loss):
    """NT-Xent, its mean over positive pairs; exact also where the peer saturates."""

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__(lambda **k: (terms.NTXent(temperature, **k),))


class TupletMarginLoss(Loss):
    """Tuplet margin loss, its mean over positive pairs; `margin` is in degrees."""

    def __init__(self, margin: float = 5.73, scale: float = 64) -> None:
        super().__init__(lambda **k: (terms.TupletMargin(margin, scale, **k),))


class AngularLoss(Loss):
    """Angular loss, its mean over positive pairs; as in the peer, negatives keep their norms."""

    def __init__(self, alpha: float = 40) -> None:
        super().__init__(lambda **k: (terms.Angular(alpha, **k),), needs_negatives=True)


class TripletMarginLoss(Loss):
    """All triplets, the mean over those that violate the margin; memory is linear in the batch."""

    def __init__(
        self,
        margin: float = 0.05,
        swap: bool = False,
        smooth_loss: bool = False,
        triplets_per_anchor: str = "all",
    ) -> None:
        if swap or smooth_loss or triplets_per_anchor != "all":
            raise NotImplementedError(
                "TripletMarginLoss takes all triplets here, with a margin and without swap. "
                "See kinfold.losses.TripletLoss for other choices."
            )
        super().__init__(
            lambda **k: (losses.TripletLoss(margin, "all", "all", distance="euclidean", **k),)
        )


class LiftedStructureLoss(Loss):
    """Lifted structure loss; see `kinfold.losses.LiftedStructureLoss`.

    With references it is the peer's number, which takes the negatives of a reference from the
    anchor of the same index.
    """

    def __init__(self, neg_margin: float = 1, pos_margin: float = 0) -> None:
        super().__init__(
            lambda **k: (terms.Lifted(neg_margin, pos_margin, **k),),
            needs_negatives=True,
            to_references=lambda **k: (terms.LiftedToReferences(neg_margin, pos_margin, **k),),
        )


class GeneralizedLiftedStructureLoss(Loss):
    """Generalised lifted structure loss, its mean over the whole batch."""

    def __init__(self, neg_margin: float = 1, pos_margin: float = 0) -> None:
        super().__init__(lambda **k: (terms.GeneralizedLifted(neg_margin, pos_margin, **k),))


class NPairsLoss(Loss):
    """N-pairs loss; see `kinfold.losses.NPairsLoss`."""

    def __init__(self) -> None:
        super().__init__(lambda **k: (losses.NPairsLoss(**k),), takes_references=False)


class MarginLoss(Loss):
    """Margin loss with a fixed boundary; see `kinfold.losses.MarginLoss`."""

    def __init__(self, margin: float = 0.2, nu: float = 0, beta: float = 1.2) -> None:
        if nu:
            raise NotImplementedError("MarginLoss has a fixed beta here, so `nu` must be 0.")
        super().__init__(lambda **k: (losses.MarginLoss(margin, beta, **k),))


class NCALoss(Loss):
    """Neighbourhood components analysis on squared Euclidean distances."""

    def __init__(self, softmax_scale: float = 1) -> None:
        super().__init__(
            lambda **k: (terms.NCA(1.0 / softmax_scale, distance="squared_euclidean", **k),)
        )


class FastAPLoss(Loss):
    """FastAP; see `kinfold.losses.FastAPLoss`."""

    def __init__(self, num_bins: int = 10) -> None:
        super().__init__(lambda **k: (losses.FastAPLoss(num_bins, **k),), takes_references=False)
