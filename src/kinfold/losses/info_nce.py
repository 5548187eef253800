"""InfoNCE for paired embeddings, in one direction or both."""

import math
from typing import Any

import keras
from keras import ops

from kinfold import streaming
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import any_in_row, log_sum_exp, softplus, unit_rows
from kinfold.losses.paired import PairedLoss
from kinfold.losses.reduction import reduced
from kinfold.losses.trainable import current
from kinfold.streaming.blocks import takes_one_block
from kinfold.streaming.fused import choice as fused


@keras.saving.register_keras_serializable("kinfold")
class InfoNCELoss(PairedLoss):
    """InfoNCE loss: finds each embedding's partner among all partners of the batch.

    With s_ij the dot product of x_i and the partner r_j, divided by the temperature, the loss of
    pair i is the mean of both directions:

        -log(exp(s_ii) / sum_j exp(s_ij)),  -log(exp(s_ii) / sum_j exp(s_ji))

    or the first alone. CLIP's loss has both directions and a trained temperature. With several
    partners, the loss of each is taken among the others' candidates, and a pair has their mean.

    Args:
        temperature: scale of the dot products, greater than 0; if it is trained, its first value.
        both_directions: whether partners look for their embeddings too.
        train_temperature: whether the temperature is trained, by its logarithm.
        normalize: whether to scale both sides to unit norm first.
        block_size: embeddings that are compared with all partners at once; None chooses.
        reduction: as in Keras; "mean_with_sample_weight" divides by the weights.
        name: optional name of the loss.
        dtype: dtype of the computation; None means `keras.config.floatx()`.
        gather_across_devices: see `PairLoss`.
        positives: how many partners each embedding has; see `PairedLoss`.
        guide_margin: a guard against false negatives; see `PairedLoss`.

    Raises:
        TypeError: the temperature is not a number.
        ValueError: temperature <= 0.

    Reference:
        van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018,
        https://arxiv.org/abs/1807.03748; Radford et al., Learning Transferable Visual Models From
        Natural Language Supervision, ICML 2021, https://arxiv.org/abs/2103.00020

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import InfoNCELoss
    >>> x = np.array([[1, 0], [0, 1]], "float32")
    >>> r = np.array([[0.8, 0.6], [0, 1]], "float32")
    >>> value = InfoNCELoss(temperature=0.5)(None, x, ref_embeddings=r)
    >>> print(f"{ops.convert_to_numpy(value):.4f}")
    0.2987
    """

    def __init__(
        self,
        temperature: float = 0.07,
        both_directions: bool = True,
        train_temperature: bool = False,
        normalize: bool = False,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "info_nce_loss",
        dtype: Any = None,
        *,
        gather_across_devices: bool = True,
        positives: int = 1,
        guide_margin: float | None = None,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(*shared, positives, guide_margin)
        self.temperature = checks.number(temperature, "temperature", above=0.0)
        self.both_directions = bool(both_directions)
        self.train_temperature = bool(train_temperature)
        start = -math.log(self.temperature)
        if self.train_temperature:
            self.log_scale = self._add_variable("log_scale", (), keras.initializers.Constant(start))

    def _scaled(self, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        if self.train_temperature:
            return x * ops.exp(current(self.log_scale)), r
        return x / self.temperature, r

    def _fused(self, x: Tensor, r: Tensor) -> Tensor | None:
        if not fused.wanted(x):
            return None
        if self.normalize:
            x, r = unit_rows(x), unit_rows(r)
        scale = ops.convert_to_tensor(1.0 / self.temperature, dtype="float32")
        if self.train_temperature:
            scale = ops.exp(current(self.log_scale))
        return fused.pairs(self, x, r, scale, self.both_directions)

    def directions(self, x: Tensor, r: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(x, r), (r, x)] if self.both_directions else [(x, r)]

    def _rows(self, x: Tensor, r: Tensor) -> Tensor:
        rows = super()._rows(x, r)
        return (rows + super()._rows(r, x)) / 2.0 if self.both_directions else rows

    def _reduced(self, x: Tensor, r: Tensor, weights: Tensor, reduction: str) -> Tensor:
        if not self.both_directions or 0 in x.shape:
            return super()._reduced(x, r, weights, reduction)
        few = (
            None not in (x.shape[0], r.shape[0])
            and x.shape[0] * r.shape[0] <= self.rule().on(x).pairs
        )
        if takes_one_block(self.block_size is None and few):
            total = self._whole(x, r, weights)
        else:
            total = streaming.with_equation(self._streamed, self._whole, (x, r, weights))
        return reduced(total, ops.ones_like(weights, dtype="bool"), weights, reduction)

    def _whole(self, x: Tensor, r: Tensor, weights: Tensor) -> Tensor:
        logit = x @ ops.transpose(r)
        sums = log_sum_exp(logit) + log_sum_exp(logit, axis=0)
        return ops.sum((sums / 2.0 - _at(logit, self._at(x))) * weights)

    def _streamed(self, x: Tensor, r: Tensor, weights: Tensor) -> Tensor:
        # Four products where two passes would take six: the sums of the partners' direction come
        # first, and their gradient is then taken among the rows of the other one.
        sums, _ = streaming.per_anchor(
            self._sums, ops.stop_gradient(r), ops.stop_gradient(x), rule=self.rule()
        )
        anchors, references = (self._at(x), weights), (sums, weights)
        return streaming.weighted_sum(
            self._both,
            x,
            r,
            ops.ones_like(weights),
            anchors,
            references,
            rule=self.rule(),
        )[0]

    def row(self, logit: Tensor, at: Tensor) -> Tensor:
        return log_sum_exp(logit) - _at(logit, at)

    def row_of_several(self, logit: Tensor, own: Tensor, negative: Tensor) -> Tensor:
        others = ops.expand_dims(log_sum_exp(logit, negative), 1)
        counts = ops.logical_and(own, ops.expand_dims(any_in_row(negative), 1))
        zero = ops.zeros_like(logit)
        apart = ops.where(counts, softplus(ops.where(counts, others - logit, zero)), zero)
        return ops.sum(apart, axis=1) / ops.sum(ops.cast(own, apart.dtype), axis=1)

    def _sums(self, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        sums = log_sum_exp(x @ ops.transpose(r))
        return sums, ops.ones_like(sums, dtype="bool")

    def _both(
        self, x: Tensor, r: Tensor, at: Tensor, w: Tensor, sums: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both directions of a block, weighted; each partner's is counted in its own row."""
        logit = x @ ops.transpose(r)
        rows = self.row(logit, at) + ops.take(sums, at) - _at(logit, at)
        # Of value 0; its gradient is that of the partners' sums.
        pull = ops.sum(ops.exp(logit - sums) * weights, axis=1)
        rows = w * rows + pull - ops.stop_gradient(pull)
        return rows / 2.0, ops.ones_like(w, dtype="bool")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "both_directions": self.both_directions,
            "train_temperature": self.train_temperature,
        }


def _at(logit: Tensor, columns: Tensor) -> Tensor:
    """The entry of each row in its column."""
    return ops.squeeze(ops.take_along_axis(logit, ops.expand_dims(columns, 1), axis=1), axis=1)
