"""The trial of the fused kernels, which comes before they are chosen where nobody asked for them.

What a compiler makes of a kernel differs from one GPU and one version to the next, and tests see an
interpreter. So the first time that a loss meets a GPU, a precision and a width, a small batch goes
through the very kernels that it would take and through the dense equation.
"""

import warnings
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from kinfold.core.checks import Tensor

# Several tiles of every size, most of them of negatives alone, and a rest that no tile divides.
ANCHORS, REFERENCES = 600, 530
CLASS_SIZE = 4

# Of the norm of what is compared: half precision and TF32 stay well below, and a fault does not.
NEAR = 0.02

Rows = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
Evaluated = Callable[[Rows, Sequence[np.ndarray], Sequence[np.ndarray]], list[np.ndarray]]

_passed: weakref.WeakKeyDictionary[Any, dict[Any, bool]] = weakref.WeakKeyDictionary()


def passes(
    loss: Any, x: Tensor, setting: Any, evaluated: Evaluated, kernels: Rows, dense: Rows
) -> bool:
    """Whether the kernels give what the dense equation gives; they are tried once.

    Args:
        loss: whose kernels they are.
        x: embeddings [n, d], of which the precision and the width count.
        setting: what else the kernels depend on: the device, the precision of products.
        evaluated: gives what a function makes of arrays and labels, and its gradients.
        kernels: loss of each anchor, from anchors and references, or anchors alone that are the
            references too, and the labels of each.
        dense: the same by the dense equation.
    """
    dtype = keras.backend.standardize_dtype(x.dtype)
    key = x.shape[1], dtype, setting
    results = _passed.setdefault(loss, {})
    if key not in results:
        # In a thread of its own, where no tracing, autocast or mode of the caller's reaches.
        with ThreadPoolExecutor(1) as thread:
            fault = thread.submit(_fault, x.shape[1], evaluated, kernels, dense).result()
        results[key] = fault is None
        if fault:
            warnings.warn(
                f"The fused kernels failed their trial for {type(loss).__name__} in {dtype} with "
                f"d = {x.shape[1]}: {fault} The loss is streamed instead, which is right, and "
                "slower on a GPU. Please report this.",
                stacklevel=2,
            )
    return results[key]


def _fault(d: int, evaluated: Evaluated, kernels: Rows, dense: Rows) -> str | None:
    """What is wrong with the kernels, in a sentence; None where nothing is."""
    rng = np.random.default_rng(0)
    x, r = (rng.standard_normal((n, d)) for n in (ANCHORS, REFERENCES))
    x, r = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, r))
    y, ref_y = (rng.permutation(n) // CLASS_SIZE for n in (ANCHORS, REFERENCES))
    y[:5] = -np.arange(1, 6)  # of no kind with any other
    for floats, integers in (((x,), (y,)), ((x, r), (y, ref_y))):
        try:
            found = evaluated(kernels, floats, integers)
        except Exception as error:  # of a compiler or a driver, which have no base of their own
            return f"{type(error).__name__}: {str(error).strip()[:300]}"
        expected = evaluated(dense, floats, integers)
        for what, a, b in zip(("loss", "gradient", "gradient"), found, expected, strict=False):
            apart = float(np.linalg.norm(a - b))
            if not apart <= NEAR * np.linalg.norm(b):  # NaN is not
                return f"the {what} is {apart:.2g} off, of {np.linalg.norm(b):.2g}."
    return None
