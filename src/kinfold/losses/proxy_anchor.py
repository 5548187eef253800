"""Proxy-Anchor: each class's proxy as an anchor among the examples of the batch."""

from typing import Any

import keras
from keras import ops

from kinfold import distributed, streaming
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row, divide, log_sum_exp, or_nan, softplus, unit_rows
from kinfold.losses.prototypes import PrototypeLoss
from kinfold.losses.reduction import anchor_weights
from kinfold.losses.trainable import current
from kinfold.streaming import BlockSizeRule


@keras.saving.register_keras_serializable("kinfold")
class ProxyAnchorLoss(PrototypeLoss):
    """Proxy-Anchor loss: pulls each class's examples to its proxy, the hard ones most.

    With s_ic the cosine between example i and the proxy of class c, C all classes, C+ those with an
    example in the batch:

        sum_{c in C+} log(1 + sum_{i of c} exp(-alpha (s_ic - margin))) / |C+|
        + sum_{c in C} log(1 + sum_{i not of c} exp(alpha (s_ic + margin))) / |C|

    It is one number per batch. An example of weight w counts as w examples.

    Args:
        num_classes: number of classes; labels are ids from 0 up to it.
        embedding_size: dimensions of the embeddings.
        margin: added to the cosines of negatives and taken off those of positives.
        alpha: scale of the cosines, greater than 0.
        reduction: "sum_over_batch_size" or "mean", which are the same here.

    The other arguments are those of `PrototypeLoss`.

    Raises:
        TypeError: the margin or alpha is not a number.
        ValueError: fewer than two classes, alpha <= 0, or another reduction.

    Reference:
        Kim et al., Proxy Anchor Loss for Deep Metric Learning, CVPR 2020,
        https://arxiv.org/abs/2003.13911

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import ProxyAnchorLoss
    >>> loss = ProxyAnchorLoss(num_classes=2, embedding_size=2, alpha=4.0)
    >>> _ = loss.trainable_variables[0].assign([[1, 0], [0, 1]])
    >>> x = np.array([[0.8, 0.6], [0, 1]], "float32")
    >>> value = loss(np.array([0, 1]), x)
    >>> print(f"{ops.convert_to_numpy(value):.4f}")
    1.9290
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 0.1,
        alpha: float = 32.0,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "proxy_anchor_loss",
        dtype: Any = None,
        *,
        gather_across_devices: bool = True,
    ) -> None:
        if reduction not in ("sum_over_batch_size", "mean"):
            raise ValueError(
                "ProxyAnchorLoss is one number per batch, so `reduction` must be "
                f"'sum_over_batch_size' or 'mean'. Received: reduction={reduction!r}."
            )
        shared = block_size, reduction, name, dtype, gather_across_devices
        super().__init__(num_classes, embedding_size, *shared)
        self.margin = checks.number(margin, "margin")
        self.alpha = checks.number(alpha, "alpha", above=0.0)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        """Compute the loss, a scalar; see `PrototypeLoss`."""
        self._warn_if_untrained()
        with keras.name_scope(self.name):
            return ops.cast(self._loss(y_true, y_pred, sample_weight), self.dtype)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """Return the loss, a scalar."""
        return ops.cast(self._loss(y_true, y_pred, None), self.dtype)

    def _loss(self, y_true: Any, y_pred: Any, sample_weight: Any) -> Tensor:
        y, x = self._checked(y_true, y_pred)
        weight = anchor_weights(sample_weight, like=x[:, 0])
        ranks = distributed.ranks(self, x)
        if ranks:  # a proxy looks at the examples of all ranks, and each rank takes its proxies
            rows = ranks.meet(distributed.facts(self, y_pred, y, sample_weight), x)[0]
            y, x, weight = rows.each(y, x, weight)
        ids = ops.arange(self.num_classes, dtype=y.dtype)
        prototypes = current(self.prototypes)
        known = self._known(y)
        here = ops.segment_max(
            ops.cast(weight > 0, x.dtype),
            ops.where(known, y, ops.zeros_like(y)),
            num_segments=self.num_classes,
        )
        here = ops.cast(here > 0, x.dtype)
        share = divide(here, ops.sum(here))
        own = slice(*ranks.share(self.num_classes)) if ranks else slice(None)
        total, _ = streaming.weighted_sum(
            self._proxies,
            prototypes[own],
            x,
            ops.ones_like(prototypes[own, 0]),
            (ids[own], share[own]),
            (y, weight),
            BlockSizeRule(self.block_size),
        )
        total = or_nan(total, x, prototypes)
        total = ranks.reported(total, None) if ranks else distributed.share(total)
        return ops.where(ops.all(known), total, ops.full_like(total, float("nan")))

    def _proxies(
        self, proxies: Tensor, x: Tensor, ids: Tensor, share: Tensor, y: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Part of the loss that each proxy of a block has [b]; `share` of the first sum [b]."""
        cosine = unit_rows(proxies) @ ops.transpose(x)
        own = ops.equal(ops.expand_dims(ids, 1), ops.expand_dims(y, 0))
        some = ops.expand_dims(weight > 0, 0)
        count = ops.expand_dims(ops.log(ops.where(weight > 0, weight, ops.ones_like(weight))), 0)
        sides = (
            (self.alpha * (self.margin - cosine), ops.logical_and(own, some), share),
            (
                self.alpha * (cosine + self.margin),
                ops.logical_and(ops.logical_not(own), some),
                ops.ones_like(share) / self.num_classes,
            ),
        )
        loss = ops.zeros_like(share)
        for logit, mask, part in sides:
            side = softplus(log_sum_exp(logit + count, mask))
            loss = loss + part * ops.where(any_in_row(mask), side, ops.zeros_like(side))
        return loss, ops.ones_like(share, dtype="bool")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin, "alpha": self.alpha}
