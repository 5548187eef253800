"""Sums over k, and values whose gradient comes from somewhere else."""

from collections.abc import Callable, Sequence
from typing import Any

from kinfold.core import backends
from kinfold.core.checks import Tensor


def repeated(
    fn: Callable[..., Tensor], count: Tensor, tensors: Sequence[Tensor], data: Sequence[Tensor]
) -> Tensor:
    """Sum of `fn(k, *tensors, *data)` over k from 0 to count - 1, in the memory of one.

    Args:
        fn: a hashable function of `keras.ops` that returns floating [n].
        count: an integer scalar; it may depend on the data.
        tensors: floating, that gradients go to; the first is [n, d].
        data: those that none go to.

    Returns:
        Floating [n], of the dtype of the first tensor.
    """
    return _backend().repeated(fn, count, tuple(tensors), tuple(data))


def with_equation(
    fast: Callable[..., Tensor],
    equation: Callable[..., Tensor],
    tensors: Sequence[Tensor],
    data: Sequence[Tensor] = (),
) -> Tensor:
    """`fast(*tensors, *data)`, and its gradient, with the second derivatives of `equation`.

    For a way to a value and a gradient that counts as a constant what changes with the tensors.

    Args:
        fast: a function of `keras.ops` that closes over no tensor.
        equation: the same function, in operations whose derivatives have derivatives. It is run
            where a gradient is differentiated once more, and under the transforms of torch.func.
        tensors: floating, that gradients go to.
        data: those that none go to.
    """
    return _backend().with_equation(fast, equation, tuple(tensors), tuple(data))


def _backend() -> Any:
    return backends.module(__name__)
