"""`tensorflow_similarity.layers`."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold.compat.tensorflow_similarity.pooling import (
    GeneralizedMeanPooling as GeneralizedMeanPooling,
)
from kinfold.compat.tensorflow_similarity.pooling import (
    GeneralizedMeanPooling1D as GeneralizedMeanPooling1D,
)
from kinfold.compat.tensorflow_similarity.pooling import (
    GeneralizedMeanPooling2D as GeneralizedMeanPooling2D,
)
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32, unit_rows
from kinfold.layers import L2Embedding


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class MetricEmbedding(L2Embedding):
    """A dense layer whose outputs have unit norm, with an activation before the norm if asked for.

    y / ||y|| with y = activation(x W + b). Prefer `kinfold.layers.L2Embedding`, which takes no
    activation: embeddings need every direction.

    Args:
        units: size of the embedding.
        activation: an activation of Keras, or None.
        **kwargs: `use_bias` and the others of `keras.layers.Dense`, in its order there.

    Reference:
        TensorFlow Similarity, layers.MetricEmbedding.

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.layers import MetricEmbedding
    >>> y = MetricEmbedding(4)(np.ones((2, 3), "float32"))
    >>> tuple(y.shape)
    (2, 4)
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )
        self.activation = keras.activations.get(activation)

    def get_config(self) -> dict[str, Any]:
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "activation": activation}


def mean_std(embeddings: Tensor) -> Tensor:
    """The standard deviation over the batch of each column of unit rows, averaged over columns.

    0 where all rows point the same way, as they do in a collapsed model; about 1 / sqrt(d) where
    they point everywhere.
    """
    rows = at_least_float32(unit_rows(embeddings))
    return ops.mean(ops.std(rows, axis=0))


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class ActivationStdLoggingLayer(keras.layers.Layer):
    """Passes its input on, and follows the standard deviation of its directions.

    `result()` is the mean over the training batches seen since `reset_state()`: 0 says that a model
    has collapsed. Keras 3 has no metric that a layer adds on every backend, so `fit` does not log
    it by itself; `ContrastiveModel` logs its own, as `proj_std` and `pred_std`.

    Args:
        name: of the layer.
        **kwargs: those of `keras.layers.Layer`.

    Example:

    >>> import numpy as np
    >>> from kinfold.compat.tensorflow_similarity.layers import ActivationStdLoggingLayer
    >>> layer = ActivationStdLoggingLayer("std")
    >>> _ = layer(np.array([[1.0, 0.0], [0.0, 1.0]], "float32"), training=True)
    >>> float(layer.result())
    0.5
    """

    def __init__(self, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.total = self._state("total")
        self.batches = self._state("batches")
        self.built = True

    def _state(self, name: str) -> keras.Variable:
        return self.add_weight(
            shape=(), initializer="zeros", dtype="float32", trainable=False, name=name
        )

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if training:
            self.total.assign(self.total + ops.cast(mean_std(inputs), "float32"))
            self.batches.assign(self.batches + 1.0)
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def result(self) -> np.ndarray:
        """Return the mean over batches, 0 before the first."""
        total, batches = (ops.convert_to_numpy(one) for one in (self.total, self.batches))
        return total / np.maximum(batches, 1)

    def reset_state(self) -> None:
        """Begin anew."""
        for variable in (self.total, self.batches):
            variable.assign(0.0)
