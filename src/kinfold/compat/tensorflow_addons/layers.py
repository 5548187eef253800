"""`tfa.layers`: the one of metric learning."""

from typing import Any

import keras
from keras import ops

from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32


@keras.saving.register_keras_serializable("kinfold.tensorflow_addons")
class PoincareNormalize(keras.layers.Layer):
    """Scale what lies outside of the Poincare ball onto its edge: to the norm 1 - epsilon.

    x * min((1 - epsilon) / ||x||, 1); what lies inside stays, and so does 0.

    Args:
        axis: axis, or axes, along which the norm is taken.
        epsilon: distance of the edge from the norm 1.
        **kwargs: those of `keras.layers.Layer`.

    Reference:
        Nickel and Kiela, Poincare Embeddings for Learning Hierarchical Representations, 2017,
        https://arxiv.org/abs/1705.08039; TensorFlow Addons, tfa.layers.PoincareNormalize.

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> import kinfold.compat.tensorflow_addons as tfa
    >>> x = np.array([[3.0, 4.0], [0.3, 0.4]], "float32")
    >>> ops.convert_to_numpy(tfa.layers.PoincareNormalize(epsilon=0.1)(x)).round(3)
    array([[0.54, 0.72],
           [0.3 , 0.4 ]], dtype=float32)
    """

    def __init__(self, axis: Any = 1, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis, self.epsilon = axis, checks.number(epsilon, "epsilon")

    def call(self, inputs: Tensor) -> Tensor:
        x = at_least_float32(inputs)
        square = ops.sum(x * x, axis=self.axis, keepdims=True)
        edge = 1.0 - self.epsilon
        outside = square > edge * edge
        # Roots of those outside alone, so that the gradient of 0 is that of what stays.
        norm = ops.sqrt(ops.where(outside, square, ops.ones_like(square)))
        scale = ops.where(outside, edge / norm, ops.ones_like(square))
        return ops.cast(x * scale, keras.backend.standardize_dtype(inputs.dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis, "epsilon": self.epsilon}
