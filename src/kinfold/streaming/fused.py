"""Whether fused kernels serve a loss, and what they take of it, where they are asked for.

They serve the log-sum-exp family on a GPU: PyTorch through Triton, JAX through Pallas. TensorFlow
keeps the streamed road, under XLA.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from kinfold.checks import Tensor

# Numbers of an embedding: a row's part of a tile lies in shared memory.
LARGEST = 1024

DISTANCES = ("cosine", "inner_product", "euclidean", "squared_euclidean")

_NOT_HELD = (
    "it is none of the losses that they hold, or changes one. Those are Circle, multi-similarity "
    "without mining, SupCon, NT-Xent, soft nearest neighbour, generalised lifted structure and "
    "InfoNCE."
)

_wanted = [False]


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


@contextlib.contextmanager
def fused_kernels(wanted: bool = True) -> Iterator[None]:
    """Ask for the fused kernels in a block of code; without it, none are taken.

    For all threads of the process, and for what is traced in the block where a graph is compiled.

    Args:
        wanted: whether every loss must take them (one that cannot raises), or, within such a block,
            none may.

    Raises:
        RuntimeError: within the block, from a loss that the kernels cannot serve as asked; the
            message says why.

    Example:

    >>> import numpy as np
    >>> from kinfold.losses import CircleLoss
    >>> from kinfold.streaming import fused_kernels
    >>> x, y = np.eye(4, dtype="float32"), np.array([0, 0, 1, 1])
    >>> with fused_kernels(False):
    ...     print(f"{float(CircleLoss(gamma=1.0)(y, x)):.3f}")
    1.599
    """
    before = _wanted[0]
    _wanted[0] = bool(wanted)
    try:
        yield
    finally:
        _wanted[0] = before


def rows(
    loss: Any, x: Tensor, r: Tensor, anchors: Any, references: Any
) -> tuple[Tensor, Tensor] | None:
    """Loss and validity of each anchor by the fused kernels; None where nobody asked for them.

    Args:
        loss: a `PairLoss`.
        x: anchors [n, d].
        r: references [m, d]; the anchors themselves where they are `x`.
        anchors: the labels of the anchors, and their positions.
        references: the labels of the references.

    Raises:
        RuntimeError: they do not serve.
    """
    if _unwanted(x, r):
        return None
    _refuse(loss, _reason(loss, x, anchors, references))
    labels = anchors[0], (None if r is x and references[0] is anchors[0] else references[0])
    other = None if labels[1] is None else r
    return _backend().rows(loss, x, other, labels, not loss.remove_diagonal)


def pairs(loss: Any, x: Tensor, r: Tensor, scale: Tensor, both: bool) -> tuple[Tensor, ...] | None:
    """For pairs (x_i, r_i): -log softmax of s_ii over s_i., and where `both` over s_.i.

    Args:
        loss: for its name in the message.
        x: one side [n, d].
        r: the other side [n, d].
        scale: s is the dot product times this scalar, which gets a gradient too.
        both: whether the second sum is wanted.

    Returns:
        One loss [n] or two; None where nobody asked for the kernels.

    Raises:
        RuntimeError: they do not serve.
    """
    if _unwanted(x, r):
        return None
    _refuse(loss, _of_tensors(x))
    return _backend().pairs(x, r, scale, both)


def asked() -> bool:
    return _wanted[0]


def not_held(loss: Any, reason: str = _NOT_HELD) -> None:
    """No kernels for a loss; an error where they were asked for."""
    if asked():
        _refuse(loss, reason)


def _unwanted(x: Tensor, r: Tensor) -> bool:
    """Whether nobody asked for the kernels here, or nothing is to be computed."""
    return not asked() or 0 in (*x.shape, *r.shape)


def _refuse(loss: Any, reason: str | None) -> None:
    if reason:
        raise RuntimeError(
            f"The fused kernels were asked for and cannot serve {type(loss).__name__}: {reason}"
        )


def _reason(loss: Any, x: Tensor, anchors: Any, references: Any) -> str | None:
    """Why the kernels do not serve, in a sentence; None where they do."""
    if not loss.has_fused():
        return _NOT_HELD
    if len(references) != 1 or len(anchors[0].shape) != 1:
        return "they compare class ids, without `ref_mask`; pass `y_true` as integers [batch]."
    name = loss.distance.name
    if name not in DISTANCES:
        return f"distance={name!r} is none of theirs, which are {', '.join(DISTANCES)}."
    return _of_tensors(x)


def _of_tensors(x: Tensor) -> str | None:
    d, dtype = x.shape[1], keras.backend.standardize_dtype(x.dtype)
    if d is None or d > LARGEST:
        return f"they take embeddings of at most {LARGEST} numbers. Received: {d}."
    if dtype not in ("float32", "bfloat16", "float16"):
        return f"they compute in float32, bfloat16 or float16. Received embeddings of {dtype}."
    if keras.backend.backend() == "tensorflow":
        return "there are none for TensorFlow, whose streamed road runs under XLA."
    return _backend().refusal(x)


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _backend() -> Any:
    if keras.backend.backend() == "jax":
        from kinfold.streaming import fused_jax

        return fused_jax
    from kinfold.streaming import fused_torch

    return fused_torch
