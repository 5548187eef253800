"""`tensorflow_similarity.schedules`."""

from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class WarmupCosineDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises in a line, and then falls along a cosine.

    With w warm-up steps of t in all, at step s:

        max_learning_rate * s / w                                            where s < w
        max_learning_rate * ((1 - alpha) (1 + cos(pi r)) / 2 + alpha)        elsewhere,
        r = min(1, (s - w) / (t - w))

    Args:
        max_learning_rate: the highest rate.
        total_steps: steps of training.
        warmup_steps: how many of them the rate rises in.
        alpha: the share of the highest rate that is left at the end.
        name: optional name.

    Raises:
        ValueError: as many steps to warm up as in all, or more.

    Example:

    >>> from kinfold.compat.tensorflow_similarity.schedules import WarmupCosineDecay
    >>> rate = WarmupCosineDecay(1.0, total_steps=30, warmup_steps=10)
    >>> [round(float(rate(step)), 4) for step in (0, 5, 10, 20, 30)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def __init__(
        self,
        max_learning_rate: float,
        total_steps: int,
        warmup_steps: int,
        alpha: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.max_learning_rate = checks.number(max_learning_rate, "max_learning_rate")
        self.total_steps = checks.count(total_steps, "total_steps")
        self.warmup_steps = checks.count(warmup_steps, "warmup_steps", least=0)
        self.alpha, self.name = checks.number(alpha, "alpha"), name
        if self.warmup_steps >= self.total_steps:
            raise ValueError(
                "`warmup_steps` must be less than `total_steps`. Received: "
                f"warmup_steps={warmup_steps}, total_steps={total_steps}."
            )
        self._cosine = keras.optimizers.schedules.CosineDecay(
            self.max_learning_rate, self.total_steps - self.warmup_steps, self.alpha
        )

    def __call__(self, step: Tensor) -> Tensor:
        step = ops.cast(step, "float32")
        rising = step / max(1, self.warmup_steps) * self.max_learning_rate
        falling = self._cosine(ops.maximum(step - float(self.warmup_steps), 0.0))
        return ops.where(step < float(self.warmup_steps), rising, falling)

    def get_config(self) -> dict[str, Any]:
        return {
            "max_learning_rate": self.max_learning_rate,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "alpha": self.alpha,
            "name": self.name,
        }
