"""`tensorflow_similarity.layers`."""

from typing import Any

import keras

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
