"""How a loss of pytorch-metric-learning is called, and what all of them share."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold import distributed, losses
from kinfold.compat.pytorch_metric_learning import distances, elements, reducers, tuples
from kinfold.compat.pytorch_metric_learning.equations import Equation
from kinfold.core import checks
from kinfold.core.checks import Tensor

Build = Callable[..., tuple[losses.PairLoss, ...]]

Module: Any = object
if keras.backend.backend() == "torch":
    import torch

    Module = torch.nn.Module


class Call:
    """What one call compares, checked.

    Attributes:
        x, labels: the batch; the labels are 0 where a call gives none, but what a miner chose.
        r, ref_labels: the references, which may be the batch itself.
        given: whether references were given.
        same_labels: whether reference i is example i, and so no pair of it.
        chosen: what a miner chose, or None.
    """

    def __init__(
        self, embeddings: Any, labels: Any, indices_tuple: Any, ref_emb: Any, ref_labels: Any
    ) -> None:
        if labels is None and indices_tuple is None:
            raise ValueError("Pass `labels` or `indices_tuple`.")
        without_labels = ref_labels is None and indices_tuple is None
        if without_labels if ref_emb is not None else ref_labels is not None:
            raise ValueError("Pass both `ref_emb` and `ref_labels`, or neither.")
        self.dtype = checks.compute_dtype(embeddings)
        self.same_labels = ref_emb is None or ref_labels is labels
        self.given = ref_emb is not None and not (self.same_labels and ref_emb is embeddings)
        self.x = checks.embeddings(embeddings, "embeddings", self.dtype)
        self.r = checks.embeddings(ref_emb, "ref_emb", self.dtype) if self.given else self.x
        n, m = self.x.shape[0], self.r.shape[0]
        self._as_given = labels, ref_labels if self.given else labels
        self.labels = self._labels(labels, n)
        self.ref_labels = self._labels(ref_labels, m) if self.given else self.labels
        self.chosen = None
        if indices_tuple is not None:
            self.chosen = tuples.checked(indices_tuple, n, m)

    def _labels(self, labels: Any, n: int) -> Tensor:
        return ops.zeros(n, "int32") if labels is None else checks.labels(labels, "labels")

    def known_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """The class ids of batch and references, for what makes a list of them."""
        # As given: as a tensor of a compiled step they would not be known.
        y, of_references = (tuples.known(one, "labels").reshape(-1) for one in self._as_given)
        return y, of_references

    def value(self, loss: losses.PairLoss, weights: Tensor | None = None) -> Tensor:
        """A loss of ours on what is compared."""
        references = {}
        if self.given:
            references = {"ref_labels": self.ref_labels, "ref_embeddings": self.r}
        return loss(self.labels, self.x, weights, **references)

    def any_apart(self, loss: losses.PairLoss) -> Tensor:
        """Whether any pair is a negative one, on any rank."""
        if isinstance(self.chosen, tuples.Pairs):
            return ops.convert_to_tensor(len(self.chosen.n) > 0)
        if self.chosen is not None:
            return ops.convert_to_tensor(len(self.chosen.a) > 0)
        y, r = self.labels, self.ref_labels
        if ranks := distributed.ranks(loss, y):
            rows = ranks.meet({}, y, r)
            y, r = (of.gathered(part) for of, part in zip(rows, (y, r), strict=True))
        if 0 in (y.shape[0], r.shape[0]):
            return ops.zeros((), dtype="bool")
        return ops.logical_or(
            ops.not_equal(ops.max(y), ops.min(r)), ops.not_equal(ops.min(y), ops.max(r))
        )


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
        distances.refuse_stats(collect_stats)
        usual = usual_distance or distances.LpDistance()
        self.distance = usual if distance is None else distances.found(distance)
        self.reducer = reducers.found(reducer or usual_reducer or reducers.MeanReducer())
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
        if isinstance(self.reducer, reducers.DoNothingReducer):
            return self.lists(call)
        usual = self._usual and call.chosen is None
        total = self._sum(call) if usual else self.general(call)
        return regularized(total, self.embedding_regularizer, self.embedding_reg_weight, embeddings)

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
