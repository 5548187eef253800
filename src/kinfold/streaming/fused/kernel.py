"""What a fused kernel takes of a loss, and which distances and widths it holds.

The kernels serve the log-sum-exp family on a GPU: PyTorch through Triton, JAX through Pallas.
TensorFlow keeps the streamed road, under XLA.
"""

import importlib.util

# Numbers of an embedding: a row's part of a tile lies in shared memory.
LARGEST = 1024

DISTANCES = ("cosine", "inner_product", "euclidean", "squared_euclidean")


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
