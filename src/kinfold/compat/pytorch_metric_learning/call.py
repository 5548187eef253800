"""What one call of a loss compares, checked."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold import distributed, losses
from kinfold.compat.pytorch_metric_learning import tuples
from kinfold.core import checks
from kinfold.core.checks import Tensor

_LOCAL = contextvars.ContextVar("local", default=False)


@contextlib.contextmanager
def local() -> Iterator[None]:
    """Within it, a loss is of the rows that it is given, whatever other ranks there are."""
    token = _LOCAL.set(True)
    try:
        yield
    finally:
        _LOCAL.reset(token)


class Call:
    """What one call compares, checked.

    Attributes:
        x, labels: the batch; the labels are 0 where a call gives none, but what a miner chose.
        r, ref_labels: the references, which may be the batch itself.
        given: whether references were given.
        same_labels: whether reference i is example i, and so no pair of it.
        chosen: what a miner chose, or None.
        gather: whether the batch is that of all ranks, not of one.
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
        self._given = keras.backend.standardize_dtype(getattr(embeddings, "dtype", self.dtype))
        self.same_labels = ref_emb is None or ref_labels is labels
        self.given = ref_emb is not None and not (self.same_labels and ref_emb is embeddings)
        self.x = checks.embeddings(embeddings, "embeddings", self.dtype)
        self.r = checks.embeddings(ref_emb, "ref_emb", self.dtype) if self.given else self.x
        n, m = self.x.shape[0], self.r.shape[0]
        self._as_given = labels, ref_labels if self.given else labels
        self.labels = self._labels(labels, n)
        self.ref_labels = self._labels(ref_labels, m) if self.given else self.labels
        self.gather = not _LOCAL.get()
        self.chosen = None
        if indices_tuple is not None:
            self.chosen = tuples.checked(indices_tuple, n, m)

    def _labels(self, labels: Any, n: int) -> Tensor:
        return ops.zeros(n, "int32") if labels is None else checks.labels(labels, "labels")

    def as_given(self, total: Any) -> Any:
        """A result in the half precision of the embeddings, as there; others stay as they are."""
        return ops.cast(total, self._given) if self._given in ("float16", "bfloat16") else total

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
        before = loss.gather_across_devices
        loss.gather_across_devices = before and self.gather
        try:
            return loss(self.labels, self.x, weights, **references)
        finally:
            loss.gather_across_devices = before

    def any_apart(self, loss: losses.PairLoss) -> Tensor:
        """Whether any pair is a negative one, on any rank."""
        if isinstance(self.chosen, tuples.Pairs):
            return ops.convert_to_tensor(len(self.chosen.n) > 0)
        if self.chosen is not None:
            return ops.convert_to_tensor(len(self.chosen.a) > 0)
        y, r = self.labels, self.ref_labels
        if self.gather and (ranks := distributed.ranks(loss, y)):
            rows = ranks.meet({}, y, r)
            y, r = (of.gathered(part) for of, part in zip(rows, (y, r), strict=True))
        if 0 in (y.shape[0], r.shape[0]):
            return ops.zeros((), dtype="bool")
        return ops.logical_or(
            ops.not_equal(ops.max(y), ops.min(r)), ops.not_equal(ops.min(y), ops.max(r))
        )
