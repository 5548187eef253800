"""The module of a package that is written for the backend of Keras."""

import importlib
from typing import Any

import keras


def module(package: str) -> Any:
    """`package.jax`, `package.tensorflow` or `package.torch`, imported when it is first used."""
    return importlib.import_module(f"{package}.{keras.backend.backend()}")
