"""The network of a run as it is before training."""

import dataclasses

import keras

from kinfold.encoders.scaling import Scaling
from kinfold.training import own_model, run_folder
from kinfold.training.evaluation import assign
from kinfold.training.run_folder import RunFolder
from kinfold.training.settings import Settings


def untrained(
    folder: RunFolder, settings: Settings, shape: tuple[int, ...], scaling: Scaling | None
) -> keras.Model:
    """Build the encoder of a run as it is before training; weights of a file are in the folder."""
    if folder.own_model.exists():
        return own_model.load(folder.own_model, settings.seed)
    if not folder.start.exists():
        return settings.make_encoder(shape, scaling)
    encoder = dataclasses.replace(settings, weights="none").make_encoder(shape, scaling)
    assign(encoder.variables, run_folder.read_weights(folder.start))
    return encoder
