"""How a loss of pytorch-metric-learning is called, and what all of them share."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold import losses
from kinfold.compat.pytorch_metric_learning import (
    distances,
    elements,
    reducers,
    statistics,
    tuples,
)
from kinfold.compat.pytorch_metric_learning.call import Call as Call
from kinfold.compat.pytorch_metric_learning.equations import Equation
from kinfold.core.checks import Tensor

Build = Callable[..., tuple[losses.PairLoss, ...]]

Module: Any = object
if keras.backend.backend() == "torch":
    import torch

    Module = torch.nn.Module


class Loss(Module):
    """A loss called as in pytorch-metric-learning; an `nn.Module` on PyTorch.

    Args:
        build: makes losses of ours, whose sum it is with the peer's own distance and reducer, from
            `remove_diagonal`, `dtype` and `normalize`; None for one of equations alone.
        parts: its equations by the peer's names, for other distances, reducers and a miner's
            pairs; and whether each has pairs for elements.
        usual_distance, usual_reducer: the peer's own.
        only: whether a distance is one that the equation is written for; None for any.
        takes_references: whether a call may pass references.
        needs_negatives: whether the loss is 0 where no pair at all is negative.
        to_references: makes the losses where references are given, if others.
        distance, reducer: other ones; None for the peer's own.
        embedding_regularizer: called on the embeddings [batch, d]; its value, times
            `embedding_reg_weight`, is added.
        collect_stats: whether what `statistics` finds in a call is kept, as attributes.
    """

    needs_labels = False  # even with a miner's pairs
    by_pairs = True  # whether the pairs or triplets of the batch are all that counts

    def __init__(
        self,
        build: Build | None,
        parts: dict[str, tuple[Equation, bool]] | None = None,
        usual_distance: distances.BaseDistance | None = None,
        usual_reducer: reducers.BaseReducer | None = None,
        *,
        only: Callable[[distances.BaseDistance], bool] | None = None,
        takes_references: bool = True,
        needs_negatives: bool = False,
        to_references: Build | None = None,
        distance: Any = None,
        reducer: Any = None,
        embedding_regularizer: Any = None,
        embedding_reg_weight: float = 1,
        collect_stats: bool = False,
    ) -> None:
        super().__init__()
        self.collect_stats = bool(collect_stats)
        usual = usual_distance or distances.LpDistance()
        self.distance = usual if distance is None else distances.found(distance)
        chosen = reducers.found(reducer or usual_reducer or reducers.MeanReducer())
        self.reducer = statistics.of_each_part(chosen, parts or ())
        self.embedding_regularizer = embedding_regularizer
        self.embedding_reg_weight = embedding_reg_weight
        self._usual = build is not None and distance is None and reducer is None
        self._build, self._to_references, self._parts = build, to_references or build, parts
        self._takes_references, self._needs_negatives = takes_references, needs_negatives
        self._built: dict[tuple[bool, bool, str], tuple[losses.PairLoss, ...]] = {}
        if only is not None and not only(self.distance):
            raise ValueError(
                f"{type(self).__name__} is written for {usual.name}. Received: "
                f"distance={self.distance.name}."
            )

    def forward(
        self,
        embeddings: Any,
        labels: Any = None,
        indices_tuple: Any = None,
        ref_emb: Any = None,
        ref_labels: Any = None,
    ) -> Any:
        """Compute the loss.

        Args:
            embeddings: [batch, d], of any norm.
            labels: integer class ids [batch]; None where `indices_tuple` says all.
            indices_tuple: what a miner chose, of the peer or of ours: positions of triplets
                (anchors, positives, negatives), or of pairs (anchors, positives, anchors,
                negatives). None means all pairs.
            ref_emb: references [m, d]; None means the embeddings, none being its own pair.
            ref_labels: class ids [m] of the references. As there, the very object that `labels`
                is says that reference i is example i, and so no pair of it.

        Returns:
            A scalar of the backend's tensors; with DoNothingReducer the elements of each part.

        Raises:
            ValueError: only one of ref_emb and ref_labels, references for a loss without, or
                positions outside of the batch.
            NotImplementedError: what this loss takes no miner's pairs or no such reducer for.
        """
        if labels is None and self.needs_labels:
            raise ValueError(f"{type(self).__name__} needs `labels`.")
        call = Call(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        return self.of(call, embeddings)

    if Module is object:
        __call__ = forward

    def of(self, call: Call, embeddings: Any) -> Any:
        """The loss of a checked call, and the regularizer's number of the embeddings."""
        if call.given and not self._takes_references:
            raise ValueError(f"{type(self).__name__} takes no ref_emb and ref_labels.")
        self.distance.record(call.x, call.r)
        if self.collect_stats:
            self.__dict__.update(self.statistics(call))
        if isinstance(self.reducer, reducers.DoNothingReducer):
            return self.lists(call)
        if statistics.collects(self.reducer):
            statistics.of_elements(self.reducer, self.lists(call))
        usual = self._usual and call.chosen is None
        total = self._sum(call) if usual else self.general(call)
        total = regularized(
            total, self.embedding_regularizer, self.embedding_reg_weight, embeddings
        )
        return call.as_given(total)

    def statistics(self, call: Call) -> dict[str, float]:
        """What the loss itself keeps of a call with `collect_stats`, as attributes."""
        return {}

    def _sum(self, call: Call) -> Tensor:
        """The loss with the peer's own distance and reducer, by losses of ours."""
        key = (call.given, call.same_labels, call.dtype)
        if key not in self._built:
            build: Any = self._to_references if call.given else self._build
            self._built[key] = build(remove_diagonal=key[1], dtype=key[2], normalize=True)
        total = sum(call.value(loss) for loss in self._built[key])
        return self.or_zero(call, total, self._built[key][0])

    def as_pair_loss(self) -> losses.PairLoss:
        """The loss as `kinfold.CrossBatchMemory` takes one, of labels and embeddings."""
        if not (self._usual and self._takes_references) or self.embedding_regularizer is not None:
            raise TypeError(
                f"A memory takes {type(self).__name__} with the distance and the reducer that it "
                "has by itself."
            )
        build: Any = self._build
        return elements.Sum(build(remove_diagonal=True, dtype=None, normalize=True))

    def or_zero(self, call: Call, total: Any, loss: losses.PairLoss) -> Tensor:
        if not self._needs_negatives:
            return total
        return ops.where(call.any_apart(loss), total, ops.zeros_like(total))

    def general(self, call: Call) -> Tensor:
        """The loss with any distance and reducer, or of a miner's pairs, by its equations."""
        total: Any = 0.0
        for name in self.parts():
            part = self.part(call, name)
            total = total + call.value(part, self.anchor_weights(call, part.reducer))
        return self.or_zero(call, total, part)

    def parts(self) -> dict[str, tuple[Equation, bool]]:
        if self._parts is None:
            raise NotImplementedError(
                f"{type(self).__name__} takes its own distance and reducer, and no indices_tuple."
            )
        return self._parts

    def part(self, call: Call, name: str) -> elements.Elements:
        """The elements of a part of the loss, and what reduces them."""
        equation, of_pairs = self.parts()[name]
        reducer = reducers.of_part(self.reducer, name)
        if reducer.by_divisor:
            raise NotImplementedError(
                f"DivisorReducer divides by what MarginLoss counts; {type(self).__name__} has none."
            )
        reducer = reducer if of_pairs else reducer.of_anchors()
        pairs = None if call.chosen is None else tuples.pairs_of(call.chosen)
        own: dict[str, Any] = {"remove_diagonal": call.same_labels, "dtype": call.dtype}
        return elements.Elements(equation, reducer, self.distance, pairs, **own)

    def anchor_weights(self, call: Call, reducer: reducers.BaseReducer) -> Tensor | None:
        return reducers.weights_of(reducer, call.labels, call.x)

    def lists(self, call: Call) -> dict[str, Any]:
        """The elements of each part, as DoNothingReducer returns them."""
        return {name: self._list(call, name) for name in self.parts()}

    def _list(self, call: Call, name: str) -> dict[str, Any]:
        part, of_pairs = self.part(call, name), self.parts()[name][1]
        mat = self.distance.pairwise(call.x, call.r)
        dtype = keras.backend.standardize_dtype(mat.dtype)
        positive, negative = masks(call)
        of_kinds = (ops.convert_to_tensor(mask, dtype=dtype) for mask in (positive, negative))
        losses, times = part.equation(self.distance, mat, *of_kinds)
        often = tuples.known(times, "labels").astype(int)
        row, column = (np.repeat(i, often[often > 0]) for i in np.nonzero(often))
        where = [ops.convert_to_tensor(i, dtype="int32") for i in (row, column)]
        kind = "pos_pair" if (positive[row, column] > 0).all() else "neg_pair"
        return {
            "losses": ops.take(
                ops.reshape(losses, (-1,)), where[0] * losses.shape[1] + where[1], axis=0
            ),
            "indices": tuple(where) if of_pairs else where[0],
            "reduction_type": kind if of_pairs else "element",
        }


def regularized(total: Any, regularizer: Any, weight: float, rows: Any) -> Any:
    """A loss and, if there is a regularizer, its value of some rows, times its weight."""
    return total if regularizer is None else total + regularizer(rows) * weight


def masks(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """How often each pair is a positive and a negative one, [n, m], for what makes a list."""
    n, m = call.x.shape[0], call.r.shape[0]
    if call.chosen is not None:
        positive, negative = np.zeros((n, m)), np.zeros((n, m))
        a1, p, a2, other = tuples.pairs_of(call.chosen)
        np.add.at(positive, (a1, p), 1)
        np.add.at(negative, (a2, other), 1)
        return positive, negative
    labels, of_references = call.known_labels()
    same = labels[:, None] == of_references
    own = np.eye(n, m, dtype=bool) if call.same_labels else np.zeros((n, m), bool)
    return (same & ~own).astype(float), (~same).astype(float)
