"""What a fused kernel takes of a loss, and which distances and widths it holds.

The kernels serve the log-sum-exp family on a GPU: PyTorch through Triton, JAX through Pallas.
TensorFlow has none: its blocks run under XLA.
"""

import importlib.util
from typing import Any

from kinfold import distances
from kinfold.streaming.family import Family, Linear

# Numbers of an embedding: a row's part of a tile lies in shared memory.
LARGEST = 1024

DISTANCES = ("cosine", "inner_product", "euclidean", "squared_euclidean")


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _not_combined(*_: Any) -> Any:
    raise NotImplementedError


# A pair's own reference is its positive, and the logits are the dot products.
PAIRS = Family(object, distances.get("inner_product"), Linear(1.0), Linear(1.0), _not_combined)
