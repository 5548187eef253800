"""What a fused kernel takes of a loss, and which distances and widths it holds.

The kernels serve the log-sum-exp family on a GPU: PyTorch through Triton, JAX through Pallas.
TensorFlow keeps the streamed road, under XLA.
"""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

from kinfold.core.checks import Tensor

# Numbers of an embedding: a row's part of a tile lies in shared memory.
LARGEST = 1024

DISTANCES = ("cosine", "inner_product", "euclidean", "squared_euclidean")


class Functions(NamedTuple):
    """A loss's logits and slopes in Triton, each of the distance and two numbers."""

    positive_logit: Any
    negative_logit: Any
    positive_slope: Any
    negative_slope: Any


class Fused(NamedTuple):
    """What the fused kernels take of a loss; see `PairLoss.fused`.

    Attributes:
        positive: two numbers of the positives' logit, the first of which scales it.
        negative: those of the negatives' logit.
        combine: loss of an anchor from its log-sum-exps over positives and over negatives and from
            its extra statistic, float64 [n] each.
        functions: gives the loss's own logits and slopes in Triton; None where a logit is
            first * (distance - second).
        extra: "none"; "mean", the mean of the positives' logits; or "each", the mean over the
            positives p of softplus(N - p).
    """

    positive: tuple[float, float]
    negative: tuple[float, float]
    combine: Callable[[Tensor, Tensor, Tensor], Tensor]
    functions: Callable[[], Functions] | None = None
    extra: str = "none"


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
