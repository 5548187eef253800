"""Metric learning for Keras 3, on TensorFlow, JAX and PyTorch."""

import _kinfold_backend

_kinfold_backend.use()  # before any import of Keras, which takes TensorFlow installed or not

from typing import TYPE_CHECKING as _TYPE_CHECKING

from kinfold import batches as batches
from kinfold import callbacks as callbacks
from kinfold import datasets as datasets
from kinfold import distances as distances
from kinfold import encoders as encoders
from kinfold import layers as layers
from kinfold import losses as losses
from kinfold import metrics as metrics
from kinfold import thresholds as thresholds
from kinfold.encoders import augmentation as augmentation
from kinfold.matryoshka import MatryoshkaLoss as MatryoshkaLoss
from kinfold.memory import CrossBatchMemory as CrossBatchMemory
from kinfold.model import EmbeddingModel as EmbeddingModel
from kinfold.search import Index as Index

if _TYPE_CHECKING:
    from kinfold.trained import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`kinfold.load`, which brings all of training along, once it is asked for."""
    if name != "load":
        raise AttributeError(f"module 'kinfold' has no attribute {name!r}")
    from kinfold.trained import load

    return load
