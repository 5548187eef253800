"""How a miner looks at a batch: a block of anchors at a time.

`miner(embeddings, labels)` returns positions, which a loss takes as `indices_tuple`. Distances are
looked at for a block of anchors at a time, so that memory beyond what is chosen is linear in the
batch. Embeddings must be known: a compiled step chooses in the loss itself, as
`kinfold.losses.TripletLoss(negatives="semi-hard")` does.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import ops

from kinfold.compat.pytorch_metric_learning import distances, tuples
from kinfold.compat.pytorch_metric_learning.calls import Call, Module
from kinfold.core.checks import Tensor

# Distances that are held at once.
HELD = 2**24

Chosen = tuple[np.ndarray, ...]


class BaseMiner(Module):
    """Subclass it with `of_block`, or with `mine`; a module on PyTorch.

    Args:
        distance: one of `distances`; None for the peer's own, LpDistance().
        collect_stats: whether more is kept of each call than `num_pos_pairs` and `num_neg_pairs`,
            or `num_triplets`: what `record` of the miner keeps, and the norms of `distance`.
    """

    usual_distance: distances.BaseDistance = distances.LpDistance()

    def __init__(self, distance: Any = None, collect_stats: bool = False) -> None:
        super().__init__()
        self.collect_stats = bool(collect_stats)
        self.distance = self.usual_distance if distance is None else distances.found(distance)

    def forward(
        self, embeddings: Any, labels: Any, ref_emb: Any = None, ref_labels: Any = None
    ) -> tuple[Tensor, ...]:
        """Choose pairs or triplets.

        Args:
            embeddings: [batch, d].
            labels: integer class ids [batch].
            ref_emb, ref_labels: references [m, d] and their class ids [m]; None for the batch.

        Returns:
            Positions, integers: (anchors, positives, negatives), or (anchors, positives, anchors,
            negatives).
        """
        if ref_emb is None:
            ref_emb, ref_labels = embeddings, labels
        found = self.mine(embeddings, labels, ref_emb, ref_labels)
        if len(found) == 3:
            self.num_triplets = len(found[0])
        else:
            self.num_pos_pairs, self.num_neg_pairs = len(found[0]), len(found[2])
        return found

    if Module is object:
        __call__ = forward

    def mine(self, embeddings: Any, labels: Any, ref_emb: Any, ref_labels: Any) -> Any:
        """What `forward` returns; a miner of one's own may say this, as in the peer."""
        call = Call(embeddings, labels, None, ref_emb, ref_labels)
        self.distance.record(call.x, call.r)
        found = self.choose(call)
        if self.collect_stats:
            self.record(call, found)
        return tuple(ops.convert_to_tensor(part, dtype="int32") for part in found)

    def record(self, call: Call, chosen: Chosen) -> None:
        """Keep numbers of a call as attributes, under the peer's names."""

    def choose(self, call: Call) -> Chosen:
        """Positions of what is chosen among all pairs."""
        parts = []
        for mat, positive, negative, start in self.blocks(call):
            chosen = self.of_block(mat, positive, negative)
            anchors = (0,) if len(chosen) == 3 else (0, 2)
            parts.append([part + start if i in anchors else part for i, part in enumerate(chosen)])
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def blocks(self, call: Call) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
        """Of a block of anchors: distances, positive and negative pairs [t, m], and its first."""
        y, ref_y = call.known_labels()
        tuples.known(call.x, "embeddings")
        step = max(1, HELD // max(1, len(ref_y)))
        for start in range(0, max(len(y), 1), step):
            rows = slice(start, start + step)
            mat = self.distance.pairwise(call.x[rows], call.r)
            same = y[rows, None] == ref_y
            positive = same.copy()
            if call.same_labels:
                own = np.arange(start, min(start + step, len(y), len(ref_y)))
                positive[own - start, own] = False
            yield ops.convert_to_numpy(ops.stop_gradient(mat)), positive, ~same, start

    def of_block(self, mat: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> Chosen:
        """Choose among the pairs of a block of anchors, whose positions count from 0.

        Args:
            mat: distances or similarities [t, m].
            positive, negative: boolean [t, m].
        """
        raise NotImplementedError

    def _further(self, mat: Any) -> Any:
        """`mat` turned so that larger is further."""
        return -mat if self.distance.is_inverted else mat
