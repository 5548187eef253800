"""How the pair losses of TensorFlow Similarity reduce."""

from typing import Any

from keras import ops

from kinfold.core.checks import Tensor


class BatchMean:
    """A mean over the whole batch, invalid anchors too; without reduction [batch, 1]."""

    reduction: str | None

    def counted(self, counted: Tensor) -> Tensor:
        return ops.ones_like(counted)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().__call__(*args, **kwargs)  # type: ignore[misc]
        return ops.expand_dims(loss, 1) if self.reduction in (None, "none") else loss
