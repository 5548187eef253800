"""What depends on the backend of Keras: its module of a package, and keeping to it alone."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import keras


def module(package: str) -> Any:
    """`package.jax`, `package.tensorflow` or `package.torch`, imported when it is first used."""
    return importlib.import_module(f"{package}.{keras.backend.backend()}")


def set_random_seed(seed: int) -> None:
    """As `keras.utils.set_random_seed`, but seed TensorFlow only where it is in use."""
    with _alone():
        keras.utils.set_random_seed(seed)


def save(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """As `model.save(path)`, without loading TensorFlow beside another backend."""
    with _alone():
        model.save(path)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep Keras from loading TensorFlow beside another backend.

    Keras asks whether TensorFlow is installed by importing it, which takes seconds and 400 MiB.
    A model that needs TensorFlow beside its backend has loaded it before; then nothing changes.
    """
    if "tensorflow" in sys.modules or keras.backend.backend() == "tensorflow":
        yield
        return
    lazy = importlib.import_module("keras.src.utils.module_utils").tensorflow
    if not hasattr(lazy, "_available"):  # a Keras that asks in another way
        yield
        return
    before, lazy._available = lazy._available, False
    try:
        yield
    finally:
        lazy._available = before
