"""Validation of arguments: each check returns a value ready to use, or raises one sentence."""

import math
from numbers import Real
from typing import Any

import keras
import numpy as np
from keras import ops

# Tensors are whatever the backend of Keras calls so: jax.Array, torch.Tensor, tf.Tensor.
Tensor = Any


def number(value: Any, name: str, above: float | None = None, least: float | None = None) -> float:
    """Return `value` as a finite float, above `above` or at least `least` where that is given."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"`{name}` must be a number. Received: {name}={value!r}.")
    value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"`{name}` must be finite. Received: {name}={value!r}.")
    if above is not None and value <= above:
        raise ValueError(f"`{name}` must be greater than {above:g}. Received: {name}={value!r}.")
    if least is not None and value < least:
        raise ValueError(f"`{name}` must be at least {least:g}. Received: {name}={value!r}.")
    return value


def count(value: Any, name: str, least: int = 1) -> int:
    """Return `value`, a whole number of at least `least`."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(
            f"`{name}` must be a whole number of at least {least}. Received: {name}={value!r}."
        )
    return int(value)


def choice(value: Any, name: str, known: tuple[str, ...]) -> str:
    """Return `value`, one of the known names."""
    if value not in known:
        raise ValueError(f"`{name}` must be one of {list(known)}. Received: {name}={value!r}.")
    return value


def text(value: Any, name: str) -> str | None:
    """Return `value`, a string or None."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"`{name}` must be a string or None. Received: {name}={value!r}.")
    return value


def block_size(value: Any) -> int | None:
    """Return `value`, a positive whole number of anchors or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(
            "`block_size` must be a positive whole number of anchors, or None to choose it "
            f"automatically. Received: block_size={value!r}."
        )
    return int(value)


def labels(value: Any, name: str) -> Tensor:
    """Return integer labels [n] or [n, 1] as an integer tensor [n] that keeps every bit."""
    value, dtype, shape = _integers(value, name)
    if not dtype.startswith(("int", "uint", "bool")):
        raise TypeError(
            f"`{name}` must hold integer class ids, because floats merge large ids. Received dtype "
            f"{dtype}; pass integers, for example "
            + (
                f"{name}.astype('int32')."
                if dtype.startswith(("float", "bf"))
                else "np.unique(labels, return_inverse=True)[1]."
            )
        )
    if not (len(shape) == 1 or (len(shape) == 2 and shape[1] in (1, None))):
        raise ValueError(f"`{name}` must have shape [batch] or [batch, 1]. Received shape {shape}.")
    widest = label_dtype()
    if widest == "int32" and isinstance(value, np.ndarray):
        within_32_bits(value, name)
        value = value.astype(np.int64).astype(np.int32)  # wraps: 32 bits stay 32 different bits
    value = ops.cast(ops.convert_to_tensor(value), widest)
    return ops.reshape(value, (-1,)) if len(shape) == 2 else value


def _integers(value: Any, name: str) -> tuple[Any, str, tuple[Any, ...]]:
    """Labels as an array or a tensor, their dtype and their shape.

    PyTorch has unsigned integers beyond uint8 in name only, so they become int64 there. An id of
    2^63 or more takes the place of a negative one: all stay different.
    """
    if not ops.is_tensor(value):
        value = np.asarray(value)
    dtype = str(value.dtype).removeprefix("torch.")
    dtype = dtype if isinstance(value, np.ndarray) or dtype.startswith("uint") else _dtype(value)
    shape = known_shape(value, name)
    if dtype.startswith("float") and _stand_for_a_mean(value):
        value, dtype = ops.cast(value, "int64"), "int64"
    if keras.backend.backend() == "torch" and dtype in ("uint16", "uint32", "uint64"):
        if isinstance(value, np.ndarray):
            value = value.astype(np.int64)
        else:
            import torch

            value = value.view(torch.int64) if dtype == "uint64" else value.to(torch.int64)
        dtype = "int64"
    return value, dtype, shape


def _stand_for_a_mean(value: Any) -> bool:
    """Whether Keras builds a model for replicas of TensorFlow, with means of their labels."""
    if keras.backend.backend() != "tensorflow" or is_concrete(value):
        return False
    import tensorflow as tf

    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return False
    return tf.distribute.get_replica_context() is None


def known_shape(value: Any, name: str) -> tuple[Any, ...]:
    """The shape of a tensor, where at least its rank is known."""
    if getattr(value.shape, "rank", 0) is None:  # of TensorFlow alone
        raise ValueError(
            f"`{name}` has a shape of unknown rank, as a `tf.py_function` returns it. Say what it "
            f"is where it is made: tf.ensure_shape({name}, [None]) for class ids, [None, d] for "
            "embeddings, or `set_shape`."
        )
    return tuple(value.shape)


def label_dtype() -> str:
    """Keras's own choice for 64-bit integers: int64, or int32 on JAX without x64."""
    if keras.backend.backend() == "torch":  # to ask would send an empty tensor to the GPU
        return "int64"
    return _dtype(ops.convert_to_tensor(np.zeros(0, np.int64)))


def supervision(value: Any, name: str) -> Tensor:
    """Return class ids [n]; or labels [n, count] as float32 0 and 1; or pairs, boolean [n, m]."""
    value, dtype, shape = _integers(value, name)
    if len(shape) != 2 or shape[1] in (1, None):
        return labels(value, name)
    if dtype == "bool":
        return ops.convert_to_tensor(value)
    if not dtype.startswith(("int", "uint")):
        raise TypeError(
            f"`{name}` of shape [batch, labels] must hold the integers 0 and 1. Received shape "
            f"{shape} and dtype {dtype}; pass {name}.astype('int32')."
        )
    value = ops.convert_to_tensor(value)
    if is_concrete(value):
        values = ops.convert_to_numpy(value)
        wrong = values[(values != 0) & (values != 1)]
        if wrong.size:
            raise ValueError(
                f"`{name}` must be class ids of shape [batch] or [batch, 1], or 0 and 1 for each "
                f"of several labels. Received shape {shape} with the value {int(wrong[0])}."
            )
    return ops.cast(value, "float32")


def columns(pairs: Tensor, r: Tensor, names: tuple[str, str]) -> None:
    """Raise unless `pairs` has a column for each row of `r`, as far as the sizes are known."""
    n, m = pairs.shape[1], r.shape[0]
    if n is not None and m is not None and n != m:
        raise ValueError(
            f"A boolean `{names[0]}` must have a column for each row of `{names[1]}`, {m}. "
            f"Received shape {tuple(pairs.shape)}; for labels [batch, labels] pass integers."
        )


def within_32_bits(value: np.ndarray, name: str) -> None:
    """Raise if integers differ in more than the 32 bits that JAX keeps without x64."""
    if value.size == 0 or value.dtype.itemsize < 4:
        return
    low, high = int(value.min()), int(value.max())
    if high >= 2**32 or low < -(2**31) or (low < 0 and high >= 2**31):
        raise ValueError(
            f"`{name}` needs more than 32 bits and JAX keeps 32, so that different classes would "
            f"merge. Received ids from {low} to {high}; pass "
            "np.unique(labels, return_inverse=True)[1], or enable jax_enable_x64."
        )


def compute_dtype(value: Any) -> str:
    """Dtype for the functions to compute with: float64 for float64 where it is to be had."""
    given = keras.backend.standardize_dtype(getattr(value, "dtype", "float32"))
    if given == "float64" and isinstance(value, np.ndarray):  # of NumPy; JAX without x64 has none
        given = _dtype(ops.convert_to_tensor(np.zeros(0, np.float64)))
    return "float64" if given == "float64" else "float32"


def embeddings(value: Any, name: str, dtype: str) -> Tensor:
    """Return embeddings as a tensor [n, d] of `dtype`."""
    value = ops.convert_to_tensor(value, dtype=dtype)
    if len(known_shape(value, name)) != 2:
        raise ValueError(
            f"`{name}` must hold one embedding per row, shape [batch, dimension]. "
            f"Received shape {tuple(value.shape)}."
        )
    return value


def binary(labels: Tensor, name: str) -> None:
    """Raise unless integer `labels` are 0 or 1, where they can be looked at."""
    if not is_concrete(labels):
        return
    values = ops.convert_to_numpy(labels)
    wrong = values[(values != 0) & (values != 1)]
    if wrong.size:
        raise ValueError(
            f"`{name}` must hold 1 for pairs of the same kind and 0 for others. "
            f"Received the value {int(wrong[0])}."
        )


def same_count(a: Tensor, b: Tensor, names: tuple[str, str], axis: int = 0) -> None:
    """Raise unless `a` and `b` agree along `axis`, as far as the sizes are known."""
    n, m = a.shape[axis], b.shape[axis]
    if n is not None and m is not None and n != m:
        what = "rows" if axis == 0 else "columns"
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` must have the same number of {what}. "
            f"Received {n} and {m}."
        )


def size(value: Tensor, expected: int, name: str, expected_name: str) -> None:
    """Raise unless the rows of `value` have `expected` numbers, as far as that is known."""
    if value.shape[1] not in (None, expected):
        raise ValueError(
            f"`{name}` must have shape [batch, {expected_name}], with {expected_name}={expected}. "
            f"Received shape {tuple(value.shape)}."
        )


def mask(value: Any, like: Tensor, name: str, pairs: bool) -> Tensor:
    """Return `value`, which rows of `like` count, as a boolean tensor [m]."""
    if pairs:
        raise ValueError(
            f"`{name}` has no use beside a boolean `y_true` [batch, m], which can leave the "
            "references out itself. Pass class ids with it."
        )
    value = ops.convert_to_tensor(value)
    if _dtype(value) != "bool" or len(known_shape(value, name)) != 1:
        raise ValueError(
            f"`{name}` must be boolean [m]. Received dtype {_dtype(value)}, shape "
            f"{tuple(value.shape)}."
        )
    same_count(value, like, (name, "the references"))
    return value


def one_class_each(labels: Tensor, loss: str) -> None:
    """Raise unless `labels` are class ids [n]."""
    if len(labels.shape) != 1:
        raise ValueError(
            f"{loss} needs class ids, shape [batch]. Received shape {tuple(labels.shape)}."
        )


def class_ids(labels: Tensor, num_classes: int, name: str) -> None:
    """Raise unless `labels` are from 0 to num_classes - 1, where they can be looked at."""
    if not is_concrete(labels) or 0 in labels.shape:
        return
    values = ops.convert_to_numpy(labels)
    wrong = values[(values < 0) | (values >= num_classes)]
    if wrong.size:
        raise ValueError(
            f"`{name}` must hold class ids from 0 to {num_classes - 1}, because num_classes is "
            f"{num_classes}. Received the id {int(wrong[0])}; pass "
            "np.unique(labels, return_inverse=True)[1], or a larger num_classes."
        )


def is_concrete(tensor: Tensor) -> bool:
    """True where the values can be looked at: eager, not traced, not compiled."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return not isinstance(tensor, jax.core.Tracer)
    if backend == "tensorflow":
        return hasattr(tensor, "numpy")
    import torch

    # Keras asks for the shapes of an unbuilt model with tensors that have no values, and within
    # torch.func.grad or vmap a value is that of one call among several.
    return not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or getattr(tensor, "is_meta", False)
    )


def _dtype(tensor: Tensor) -> str:
    return keras.backend.standardize_dtype(tensor.dtype)
