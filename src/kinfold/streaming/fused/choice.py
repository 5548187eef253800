"""Where the fused kernels are chosen, and why not."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from kinfold.core import backends
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32, log_sum_exp
from kinfold.streaming.fused.kernel import DISTANCES, LARGEST

_NOT_HELD = (
    "it is none of the losses that they hold, or changes one. Those are Circle, multi-similarity "
    "without mining, SupCon, NT-Xent, soft nearest neighbour, generalised lifted structure and "
    "InfoNCE."
)

_wanted: list[bool | None] = [None]


@contextlib.contextmanager
def fused_kernels(wanted: bool = True) -> Iterator[None]:
    """Ask for the fused kernels in a block of code, or go without them.

    Left alone, a loss chooses them on a GPU wherever they serve, once a small batch has shown that
    they give there what its equation gives; and the streamed road elsewhere. For all threads of
    the process, and for what is traced in the block where a graph is compiled.

    Args:
        wanted: whether every loss must take them (one that cannot raises), or none may.

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
    """Loss and validity of each anchor by the fused kernels; None where they do not serve.

    Args:
        loss: a `PairLoss`.
        x: anchors [n, d].
        r: references [m, d]; the anchors themselves where they are `x`.
        anchors: the labels of the anchors, and their positions.
        references: the labels of the references.

    Raises:
        RuntimeError: they were asked for and do not serve.
    """
    if not wanted(x) or 0 in (*x.shape, *r.shape):
        return None
    if _refused(loss, _reason(loss, x, anchors, references)):
        return None
    backend = _backend()

    def kernels(sides: Any, labels: Any) -> Any:
        other, ref_y = (sides[1], labels[1]) if len(sides) > 1 else (None, None)
        return backend.rows(loss, sides[0], other, (labels[0], ref_y), not loss.remove_diagonal)

    def dense(sides: Any, labels: Any) -> Tensor:
        at = ops.arange(len(sides[0]), dtype="int32")
        return loss._block(sides[0], sides[-1], labels[0], at, labels[-1])[0]

    if not (asked() or backend.on_trial(loss, x, lambda *a: kernels(*a)[0], dense)):
        return None
    y, (ref_y, *_) = anchors[0], references
    return kernels((x,), (y,)) if r is x and ref_y is y else kernels((x, r), (y, ref_y))


def pairs(loss: Any, x: Tensor, r: Tensor, scale: Tensor, both: bool) -> Tensor | None:
    """For pairs (x_i, r_i): -log softmax of s_ii over s_i., and where `both` the mean with s_.i.

    Args:
        loss: whose pairs they are.
        x: one side [n, d].
        r: the other side [n, d].
        scale: s is the dot product times this scalar, which gets a gradient too.
        both: whether the second sum is wanted.

    Returns:
        The loss of each pair [n]; None where the kernels do not serve.

    Raises:
        RuntimeError: they were asked for and do not serve.
    """
    if not wanted(x) or 0 in x.shape or _refused(loss, _of_tensors(x)):
        return None
    backend = _backend()

    def kernels(x: Tensor, r: Tensor, scale: Any) -> Tensor:
        found = backend.pairs(x, r, scale, both)
        return sum(found) / len(found)

    def partners(sides: Any) -> tuple[Tensor, Tensor]:
        count = len(sides[-1])
        return sides[0][:count], sides[-1]

    def tried(sides: Any, labels: Any) -> Tensor:
        return kernels(*partners(sides), ops.ones((), "float32"))

    def dense(sides: Any, labels: Any) -> Tensor:
        x, r = partners(sides)
        logit = at_least_float32(x) @ ops.transpose(at_least_float32(r))
        sums = [log_sum_exp(logit, axis=axis) for axis in (1, 0)[: 1 + both]]
        return sum(sums) / len(sums) - ops.diagonal(logit)

    if not (asked() or backend.on_trial(loss, x, tried, dense)):
        return None
    return kernels(x, r, scale)


def asked() -> bool:
    return bool(_wanted[0])


def wanted(x: Tensor) -> bool:
    """Whether the kernels are asked for, or are the first choice where `x` lies."""
    if _wanted[0] is not None:
        return _wanted[0]
    return backends.module("kinfold.streaming").on_gpu(x)


def not_held(loss: Any, reason: str = _NOT_HELD) -> None:
    """No kernels for a loss; an error where they were asked for."""
    _refused(loss, reason)


def _refused(loss: Any, reason: str | None) -> bool:
    """Whether there is a reason against the kernels; an error where they were asked for."""
    if reason and asked():
        raise RuntimeError(
            f"The fused kernels were asked for and cannot serve {type(loss).__name__}: {reason}"
        )
    return bool(reason)


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


def _backend() -> Any:
    if keras.backend.backend() == "jax":
        from kinfold.streaming.fused.pallas import road as pallas

        return pallas
    from kinfold.streaming.fused.triton import road as triton

    return triton
