"""SigLIP: a sigmoid for every pair of paired embeddings."""

import math
from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import softplus, unit_rows
from kinfold.losses.paired import PairedLoss
from kinfold.losses.trainable import current
from kinfold.streaming.fused import choice as fused


@keras.saving.register_keras_serializable("kinfold")
class SigLIPLoss(PairedLoss):
    """SigLIP loss: decides for each pair of embeddings by itself whether they are partners.

    With s_ij = scale x_i.r_j + bias, z_ij = 1 for partners (i = j) and -1 else, for pair i:

        sum_j log(1 + exp(-z_ij s_ij))

    Args:
        scale: of the dot products, greater than 0; if it is trained, its first value.
        bias: added to the scaled dot products; if it is trained, its first value.
        train_scale_and_bias: whether both are trained, the scale by its logarithm.
        normalize: whether to scale both sides to unit norm first.
        block_size: embeddings that are compared with all partners at once; None chooses.
        reduction: as in Keras; "mean_with_sample_weight" divides by the weights.
        name: optional name of the loss.
        dtype: dtype of the computation; None means `keras.config.floatx()`.
        gather_across_devices: see `PairLoss`.
        positives: how many partners each embedding has; see `PairedLoss`.
        guide_margin: a guard against false negatives; see `PairedLoss`.

    Raises:
        TypeError: the scale or the bias is not a number.
        ValueError: scale <= 0.

    Reference:
        Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023,
        https://arxiv.org/abs/2303.15343

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.losses import SigLIPLoss
    >>> x = np.array([[1, 0], [0, 1]], "float32")
    >>> r = np.array([[0.8, 0.6], [0, 1]], "float32")
    >>> loss = SigLIPLoss(scale=4.0, bias=-2.0, train_scale_and_bias=False)
    >>> value = loss(None, x, ref_embeddings=r)
    >>> print(f"{ops.convert_to_numpy(value):.4f}")
    0.7151
    """

    def __init__(
        self,
        scale: float = 10.0,
        bias: float = -10.0,
        train_scale_and_bias: bool = True,
        normalize: bool = False,
        block_size: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "sig_lip_loss",
        dtype: Any = None,
        *,
        gather_across_devices: bool = True,
        positives: int = 1,
        guide_margin: float | None = None,
    ) -> None:
        shared = normalize, block_size, reduction, name, dtype, gather_across_devices
        super().__init__(*shared, positives, guide_margin)
        self.scale = checks.number(scale, "scale", above=0.0)
        self.bias = checks.number(bias, "bias")
        self.train_scale_and_bias = bool(train_scale_and_bias)
        if self.train_scale_and_bias:
            constant = keras.initializers.Constant
            self.log_scale = self._add_variable("log_scale", (), constant(math.log(self.scale)))
            self.trained_bias = self._add_variable("bias", (), constant(self.bias))

    def _scaled(self, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        if not self.train_scale_and_bias:
            return x * self.scale, r
        # The bias is one more column of the dot product, so that its gradient is the engine's.
        x = x * ops.exp(current(self.log_scale))
        bias = ops.ones_like(x[:, :1]) * current(self.trained_bias)
        one = ops.ones_like(r[:, :1])
        return ops.concatenate([x, bias], axis=1), ops.concatenate([r, one], axis=1)

    def _fused(self, x: Tensor, r: Tensor) -> Tensor | None:
        return self._sigmoids(x, r, None)

    def _fused_total(self, x: Tensor, r: Tensor, weights: Tensor) -> Tensor | None:
        return self._sigmoids(x, r, weights)

    def _sigmoids(self, x: Tensor, r: Tensor, weights: Tensor | None) -> Tensor | None:
        if not fused.wanted(x):
            return None
        if self.normalize:
            x, r = unit_rows(x), unit_rows(r)
        scale, bias = self.scale, self.bias
        if self.train_scale_and_bias:
            scale, bias = ops.exp(current(self.log_scale)), current(self.trained_bias)
        return fused.sigmoids(self, x, r, scale, bias, weights)

    def row(self, logit: Tensor, at: Tensor) -> Tensor:
        if not self.train_scale_and_bias:
            logit = logit + self.bias
        columns = ops.arange(ops.shape(logit)[1], dtype=at.dtype)
        own = ops.equal(ops.expand_dims(at, 1), ops.expand_dims(columns, 0))
        sign = ops.cast(ops.where(own, -1.0, 1.0), keras.backend.standardize_dtype(logit.dtype))
        return ops.sum(softplus(sign * logit), axis=1)

    def row_of_several(self, logit: Tensor, own: Tensor, negative: Tensor) -> Tensor:
        if not self.train_scale_and_bias:
            logit = logit + self.bias
        zero = ops.zeros_like(logit)
        near = ops.where(own, softplus(-logit), zero)
        return ops.sum(near + ops.where(negative, softplus(logit), zero), axis=1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scale": self.scale,
            "bias": self.bias,
            "train_scale_and_bias": self.train_scale_and_bias,
        }
