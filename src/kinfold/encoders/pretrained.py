"""Weights to begin from, and layers that keep them."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from kinfold.encoders.networks import EMBEDDING


def backbone(encoder: keras.Model) -> keras.Model:
    """The part of an encoder that features come from: all before its embedding layer.

    Args:
        encoder: one of `kinfold.encoders`.

    Returns:
        The network of `keras.applications` inside it, or a model of all its layers before the
        embedding layer. They share their weights with the encoder.
    """
    for layer in encoder.layers:
        if isinstance(layer, keras.Model):
            return layer
    ends = [layer for layer in encoder.layers if layer.name == EMBEDDING]
    end = ends[0] if ends else encoder.layers[-1]
    return keras.Model(encoder.input, end.input, name=encoder.name)


def load_weights(encoder: keras.Model, path: str | Path) -> None:
    """Give the backbone of an encoder the weights in a file; its embedding layer keeps its own.

    Args:
        encoder: one of `kinfold.encoders`.
        path: a `.keras` file that holds the same backbone (the model of an earlier run, or a saved
            network of `keras.applications`), or its weights as Keras saves them, `.weights.h5` or
            the `.h5` files without top of `keras.applications`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another kind of file, or the weights are of another network.
    """
    path = check_file(path)
    network = backbone(encoder)
    if path.suffix == ".keras":
        values = _of_model(path, [tuple(w.shape) for w in network.weights])
        if values is None:
            raise ValueError(
                f"{path} does not hold the weights of this backbone, {_said(network)}. Use the "
                "same --backbone, with images of the same channels, as the model in the file."
            )
        for variable, value in zip(network.weights, values, strict=True):
            variable.assign(value)
        return
    try:
        network.load_weights(path)
    except Exception as error:  # HDF5 and Keras raise many kinds
        raise ValueError(
            f"{path} does not hold the weights of this backbone without its top, "
            f"{_said(network)}: {first_line(error)}"
        ) from error


def check_file(path: str | Path) -> Path:
    """Return the path of a file of weights; raise where there is none, or of another kind."""
    path = Path(path)
    if not path.name.endswith((".keras", ".h5")):
        raise ValueError(
            "Weights are 'none', 'imagenet', or a file that ends in .keras, .weights.h5 or .h5. "
            f"Received: weights={str(path)!r}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of weights {path}.")
    return path


def freeze(encoder: keras.Model, layers: int | str) -> None:
    """Keep the first layers of the backbone of an encoder as they are in training.

    They are counted as Keras lists them, `backbone.layers[:layers]`, the input layer among them.
    Batch normalisation among them uses the statistics that it has, also in training.

    Args:
        encoder: one of `kinfold.encoders`.
        layers: how many, or "all".

    Raises:
        ValueError: the backbone has fewer.
    """
    network = backbone(encoder)
    count = len(network.layers)
    if layers == "all":
        layers = count
    if not isinstance(layers, int) or not 0 <= layers <= count:
        raise ValueError(
            f"`freeze` must be from 0 to {count}, the layers of this backbone, or 'all'. "
            f"Received: freeze={layers}."
        )
    for layer in network.layers[:layers]:
        layer.trainable = False


def _of_model(path: Path, shapes: list[tuple[int, ...]]) -> list[np.ndarray] | None:
    """The weights in a model file of the part of it that has weights of these shapes."""
    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # as many kinds as there are layers
        raise ValueError(f"{path} cannot be read as a Keras model: {first_line(error)}") from error
    parts = [model]
    if isinstance(model, keras.Model) and len(getattr(model, "layers", [])) > 1:
        parts.append(backbone(model))
    for part in parts:
        if [tuple(w.shape) for w in part.weights] == shapes:
            return [np.array(keras.ops.convert_to_numpy(w)) for w in part.weights]
    return None


def _said(network: keras.Model) -> str:
    return f"{network.name} with {len(network.weights)} arrays"


def first_line(error: Any) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
