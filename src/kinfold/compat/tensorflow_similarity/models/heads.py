"""The heads of a contrastive model: the projector, and the predictor of SimSiam."""

import keras
from keras import layers

_EPSILON = 1.001e-5  # of the normalisation, as there


def get_projector(
    input_dim: int, dim: int = 512, activation: str = "relu", num_layers: int = 3
) -> keras.Model:
    """Build a projector: dense layers with batch normalisation, which the loss looks behind.

    Args:
        input_dim: size of what the backbone gives.
        dim: size of each layer, and of the projection.
        activation: between layers; the last has none.
        num_layers: number of dense layers.
    """
    inputs = keras.Input((input_dim,), name="projector_input")
    x = inputs
    for _ in range(num_layers - 1):
        x = _hidden(x, dim, activation)
    x = layers.Dense(dim, use_bias=False, kernel_initializer="lecun_uniform")(x)
    x = layers.BatchNormalization(epsilon=_EPSILON, center=False, scale=False)(x)
    return keras.Model(inputs, x, name="projector")


def get_predictor(input_dim: int, hidden_dim: int = 512, activation: str = "relu") -> keras.Model:
    """Build a predictor: it is to tell the projection of one view from that of the other.

    Args:
        input_dim: size of a projection.
        hidden_dim: size of the layer between.
        activation: of that layer.
    """
    inputs = keras.Input((input_dim,), name="predictor_input")
    x = _hidden(inputs, hidden_dim, activation)
    x = layers.Dense(input_dim, kernel_initializer="lecun_uniform")(x)
    return keras.Model(inputs, x, name="predictor")


def _hidden(x: keras.KerasTensor, size: int, activation: str) -> keras.KerasTensor:
    x = layers.Dense(size, use_bias=False, kernel_initializer="lecun_uniform")(x)
    return layers.Activation(activation)(layers.BatchNormalization(epsilon=_EPSILON)(x))
