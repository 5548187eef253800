"""`tensorflow_similarity.layers`: the generalised mean over the places of a feature map."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32

_register = keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")


class GeneralizedMeanPooling(keras.layers.Layer):
    """The generalised mean of each channel, shifted so that its smallest value is 1.

    With the values x_u of a channel at the places u, and s = 1 - min_u x_u:

        (mean_u (x_u + s)^p)^(1/p) - s

    p = 1 is the mean, infinity the maximum, minus infinity the minimum, 0 the geometric mean. It is
    computed in float32 at least.

    Args:
        p: the exponent, any number or infinity. Beyond 25 powers may overflow: pass `math.inf`.
        data_format: "channels_last" or "channels_first"; None for Keras's own.
        keepdims: whether the axes that are averaged over stay, with length 1.
        **kwargs: those of `keras.layers.Layer`.

    Raises:
        TypeError: `p` is not a number.
        ValueError: `p` is NaN, or an input has another rank.

    Reference:
        TensorFlow Similarity, layers.GeneralizedMeanPooling2D; Radenović et al., Fine-tuning CNN
        Image Retrieval with No Human Annotation, 2018, https://arxiv.org/abs/1711.02512
    """

    places = 0  # how many axes it averages over

    def __init__(
        self, p: float = 3.0, data_format: str | None = None, keepdims: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(p, bool) or not isinstance(p, int | float | np.number):
            raise TypeError(f"`p` must be a number. Received: p={p!r}.")
        if math.isnan(p):
            raise ValueError("`p` must be a number or infinity. Received: p=nan.")
        self.p = float(p)
        self.data_format = checks.choice(
            data_format or keras.config.image_data_format(),
            "data_format",
            ("channels_last", "channels_first"),
        )
        self.keepdims = keepdims
        self.input_spec = keras.layers.InputSpec(ndim=2 + self.places)

    def call(self, inputs: Tensor) -> Tensor:
        axes = self._axes()
        x = at_least_float32(inputs)
        least = ops.min(x, axis=axes, keepdims=True)
        if self.p == math.inf:
            found = ops.max(x, axis=axes, keepdims=True)
        elif self.p == -math.inf:
            found = least
        elif abs(self.p) < 1e-5:
            mean = ops.mean(ops.log(x - least + 1.0), axis=axes, keepdims=True)
            found = ops.exp(mean) + least - 1.0
        else:
            mean = ops.mean((x - least + 1.0) ** self.p, axis=axes, keepdims=True)
            found = mean ** (1.0 / self.p) + least - 1.0
        found = found if self.keepdims else ops.squeeze(found, axis=axes)
        return ops.cast(found, self.compute_dtype)

    def _axes(self) -> tuple[int, ...]:
        first = 1 if self.data_format == "channels_last" else 2
        return tuple(range(first, first + self.places))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        shape = [1 if axis in self._axes() else size for axis, size in enumerate(input_shape)]
        if not self.keepdims:
            shape = [size for axis, size in enumerate(shape) if axis not in self._axes()]
        return tuple(shape)

    def get_config(self) -> dict[str, Any]:
        own = {"data_format": self.data_format, "keepdims": self.keepdims}
        # JSON has no infinity.
        return {
            **super().get_config(),
            "p": self.p if math.isfinite(self.p) else str(self.p),
            **own,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> GeneralizedMeanPooling:
        return cls(**{**config, "p": float(config["p"])})


@_register
class GeneralizedMeanPooling1D(GeneralizedMeanPooling):
    """The generalised mean over steps: [batch, steps, channels] to [batch, channels].

    See `GeneralizedMeanPooling` for the equation and the arguments.

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.layers import GeneralizedMeanPooling1D
    >>> x = np.array([[[0.0], [1.0]]], "float32")
    >>> print(f"{float(GeneralizedMeanPooling1D(p=2.0)(x)[0, 0]):.4f}")
    0.5811
    """

    places = 1


@_register
class GeneralizedMeanPooling2D(GeneralizedMeanPooling):
    """The generalised mean over an image: [batch, height, width, channels] to [batch, channels].

    See `GeneralizedMeanPooling` for the equation and the arguments.

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.layers import GeneralizedMeanPooling2D
    >>> tuple(GeneralizedMeanPooling2D()(np.ones((2, 4, 4, 3), "float32")).shape)
    (2, 3)
    """

    places = 2
