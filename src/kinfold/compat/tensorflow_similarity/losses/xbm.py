"""`tensorflow_similarity.losses.XBM`."""

from __future__ import annotations

from typing import Any

import keras

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.memory import check_loss


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class XBM(keras.losses.Loss):
    """A pair loss that also compares a batch with earlier batches; for `SimilarityModel.compile`.

    A loss of Keras 3 has no state of its own on every backend, so the model holds the memory; see
    `kinfold.CrossBatchMemory`, which serves other loops. The memory holds `memory_size` earlier
    examples; in the peer the batch itself takes up a part of them, and warming up fills nothing.

    Args:
        loss: a `PairLoss`.
        memory_size: number of earlier examples that each batch is compared with.
        warmup_steps: number of first steps, which only fill the memory.
        reduction: None; the loss has its own.
        name: optional name.

    Raises:
        TypeError: the loss is not over pairs.
        ValueError: a reduction is given.
        RuntimeError: it is called, which needs a memory.

    Reference:
        Wang et al., Cross-Batch Memory for Embedding Learning, CVPR 2020,
        https://arxiv.org/abs/1912.06798
    """

    def __init__(
        self,
        loss: Any,
        memory_size: int,
        warmup_steps: int = 0,
        reduction: str | None = None,
        name: str | None = None,
    ) -> None:
        self.loss = check_loss(loss)
        if reduction not in (None, "auto", self.loss.reduction):
            raise ValueError(
                "XBM reduces as its loss does: pass `reduction` to the loss. Received: "
                f"reduction={reduction!r}."
            )
        super().__init__(name=name or "xbm", reduction=self.loss.reduction)
        self.memory_size = checks.count(memory_size, "memory_size")
        self.warmup_steps = checks.count(warmup_steps, "warmup_steps", least=0)
        self.distance = self.loss.distance

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        raise RuntimeError(
            "XBM needs a memory: give it to `SimilarityModel.compile`, or take "
            "kinfold.CrossBatchMemory(loss, size, embedding_size) in a loop of your own."
        )

    def get_config(self) -> dict[str, Any]:
        return {
            "loss": keras.saving.serialize_keras_object(self.loss),
            "memory_size": self.memory_size,
            "warmup_steps": self.warmup_steps,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> XBM:
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})
