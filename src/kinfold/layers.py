"""Layers that end an embedding model."""

from typing import Any

import keras

from kinfold import distances
from kinfold.checks import Tensor
from kinfold.numerics import unit_rows


@keras.saving.register_keras_serializable("kinfold")
class L2Embedding(keras.layers.Dense):
    """A dense layer whose outputs have unit norm: y / ||y|| with y = x W + b.

    The norm is taken in float32 at least, also under mixed precision, and a zero row stays zero
    with a finite gradient (`keras.layers.UnitNormalization` gives NaN there).

    Args:
        units: size of the embedding.
        **kwargs: those of `keras.layers.Dense`, except `activation`.

    Example:

    >>> import numpy as np
    >>> from kinfold.layers import L2Embedding
    >>> y = L2Embedding(4)(np.ones((2, 3), "float32"))
    >>> tuple(y.shape)
    (2, 4)
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        if kwargs.pop("activation", None) not in (None, "linear"):
            raise ValueError("L2Embedding takes no `activation`: embeddings need every direction.")
        super().__init__(units, **kwargs)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return unit_rows(super().call(inputs, training=training))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("activation", None)
        return config


@keras.saving.register_keras_serializable("kinfold")
class PairDistance(keras.layers.Layer):
    """Distance between the two embeddings of each pair, for `ContrastiveLoss`.

    Args:
        distance: a name, instance or config; see `kinfold.distances.get`.
        **kwargs: those of `keras.layers.Layer`.

    Call arguments:
        inputs: two embeddings [batch, d], as a list or tuple. Returns distances [batch].

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.layers import PairDistance
    >>> left, right = np.zeros((1, 2), "float32"), np.array([[3, 4]], "float32")
    >>> ops.convert_to_numpy(PairDistance()([left, right]))
    array([5.], dtype=float32)
    """

    def __init__(self, distance: Any = "euclidean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.distance = distances.get(distance)

    def build(self, input_shape: Any) -> None:
        if len(input_shape) != 2:
            raise ValueError(
                f"PairDistance takes two embeddings, [left, right]. Received shapes {input_shape}."
            )
        left, right = (tuple(shape) for shape in input_shape)
        if len(left) != 2 or len(right) != 2 or left[1] != right[1]:
            raise ValueError(
                "PairDistance takes two embeddings of the same shape [batch, dimension]. "
                f"Received shapes {left} and {right}."
            )
        self.built = True

    def call(self, inputs: Any) -> Tensor:
        left, right = inputs
        return self.distance.paired(left, right)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (input_shape[0][0],)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "distance": distances.serialize(self.distance)}
