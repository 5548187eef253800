"""A run of a model of one's own: what it must be, and how the run keeps it."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from kinfold.core import backends, files
from kinfold.encoders.pretrained import first_line
from kinfold.training.settings import Settings

_DECIDED = ("backbone", "weights", "freeze", "embedding_size", "precision", "chunk")


def check(model: Any, settings: Settings) -> None:
    """Raise where a run cannot train a model, or is told what the model has decided already."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras model. Received a {type(model).__name__}.")
    given = [
        f"{name}={getattr(settings, name)!r}"
        for name in _DECIDED
        if getattr(settings, name) != getattr(Settings, name)
    ]
    if given:
        raise ValueError(
            "A model of your own decides its network, its weights, its precision and the size of "
            f"its embedding: leave out {', '.join(given)}."
        )
    if not model.built:
        raise ValueError("The model is not built: call it on a batch of examples first.")
    shape = getattr(model, "input_shape", ())
    if isinstance(shape, (list, dict)):
        raise ValueError(
            "A run gives a model one input, the examples. Received a model with the inputs "
            f"{shape}."
        )
    size = settings.image_size
    height = _shape(model)[0] if len(_shape(model)) == 3 else None
    if size is not None and height is not None and size != height:
        raise ValueError(
            f"The model takes images of {_shape(model)}: leave out the image size. Received: "
            f"image_size={size}."
        )


def read_shape(model: keras.Model, settings: Settings) -> tuple[int, int, int] | int | None:
    """What images are read as: (height, width, channels), or what the settings say."""
    shape = _shape(model)
    if len(shape) != 3:
        return settings.image_size
    size = settings.image_size or 64
    return shape[0] or size, shape[1] or size, shape[2] or 3


def check_examples(model: keras.Model, shape: tuple[int, ...], data: str) -> None:
    """Raise where examples of a shape do not fit a model, or give no embedding."""
    wanted = _shape(model) or shape
    fits = len(wanted) == len(shape) and all(
        want in (None, size) for want, size in zip(wanted, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"The model takes examples of {wanted}; {data} holds examples of {shape}.")
    found = model(np.zeros((1, *shape), "float32"), training=False)
    size = getattr(found, "shape", None)
    if size is None or len(size) != 2:
        raise ValueError(
            "The model must give one embedding for each example, [n, d]. Received "
            f"{type(found).__name__ if size is None else tuple(size)}."
        )


def keep(path: Path, model: keras.Model) -> None:
    """Write the model as it is before training."""
    with files.atomic_write(path) as beside:
        backends.save(model, beside)


def load(path: Path, seed: int) -> keras.Model:
    """Read what `keep` wrote, as new variables.

    Args:
        path: of the file.
        seed: of what its random layers draw, which no file keeps.

    Raises:
        ValueError: a class of it is not known here.
    """
    backends.set_random_seed(seed)
    try:
        return keras.saving.load_model(path, compile=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The model of this run, {path}, cannot be built here: "
            f"{first_line(error)} Its layers must be "
            "registered (keras.saving.register_keras_serializable), and the run resumed or "
            "evaluated from Python where they are imported."
        ) from error


def _shape(model: keras.Model) -> tuple[int | None, ...]:
    """Of an example; () of a model that is code alone, which does not say."""
    return tuple(getattr(model, "input_shape", ())[1:])
