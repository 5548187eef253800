"""What the losses over two views of the same examples share."""

from typing import Any

import keras
from keras import ops

from kinfold.compat import keras2
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import at_least_float32


def options(
    reduction: str | None, name: str | None, dtype: Any, default: str | None = None
) -> dict[str, Any]:
    """Return arguments of `keras.losses.Loss` for those of Keras 2."""
    return {
        "reduction": keras2.reduction(reduction),
        "name": checks.text(name, "name") or default,
        "dtype": dtype,
    }


def base_config(loss: keras.losses.Loss) -> dict[str, Any]:
    """Return what `options` takes."""
    return {"reduction": loss.reduction, "name": loss.name, "dtype": loss.dtype}


def two_views(za: Any, zb: Any, dtype: str, names: tuple[str, str] = ("za", "zb")) -> Any:
    """Return both views as tensors [batch, d], in float32 at least.

    Raises:
        ValueError: a view is not of shape [batch, d], or their shapes differ.
    """
    a, b = (checks.embeddings(z, n, dtype) for z, n in zip((za, zb), names, strict=True))
    checks.same_count(a, b, names)
    checks.same_count(a, b, names, axis=1)
    return at_least_float32(a), at_least_float32(b)


def count(z: Tensor, less: float = 0.0) -> Tensor:
    """Number of rows of `z`, `less` and at least 1, of its dtype; known only late while tracing."""
    return 1.0 + ops.relu(ops.sum(ops.ones_like(z[:, 0])) - (1.0 + less))


def centred(z: Tensor) -> Tensor:
    """Columns of mean 0; the ops.mean of JAX and torch would take float64 in float32."""
    z = z - ops.stop_gradient(z[:1])  # equal numbers leave no rounding behind
    return z - ops.sum(z, axis=0, keepdims=True) / count(z)


def one_weight(sample_weight: Any, loss: keras.losses.Loss) -> Tensor:
    """Return `sample_weight`, a number or None, for a loss that has one value a batch.

    Raises:
        ValueError: it has a weight an example.
    """
    shape = tuple(getattr(sample_weight, "shape", ()))
    if isinstance(sample_weight, (list, tuple)) or shape:
        raise ValueError(
            f"{type(loss).__name__} has one value for the whole batch, so `sample_weight` must be "
            f"a number or None. Received shape {shape or (len(sample_weight),)}."
        )
    return sample_weight
