"""Class ids as Keras reads them from its data, checked before JAX cuts them to 32 bits."""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kinfold.core import checks


def check(y: Any) -> None:
    """Raise if the backend would merge class ids.

    Args:
        y: an array, or a dict, list or tuple of arrays for several outputs. What is not an integer
            array of NumPy is left alone.

    Raises:
        ValueError: ids that need more than 32 bits, on JAX without x64.
    """
    if _cuts_ids():
        _check(y)


def watch(iterator: Any) -> None:
    """Have the labels of each batch of an iterator of Keras checked as it is read."""
    if iterator is None or isinstance(iterator.data_adapter, _Checked) or not _cuts_ids():
        return
    iterator.data_adapter = _Checked(iterator.data_adapter)


class _Checked:
    """Keras makes an adapter of every data source, and asks it for batches of NumPy arrays.

    The adapter is the one place that all sources share: next, Keras may move a batch to the device,
    and the ids are cut.
    """

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)

    def get_jax_iterator(self, super_batch: int | None = None) -> Iterator[Any]:
        """Batches; from Keras 3.16 on stacked, as many as a compiled call takes, if it says so."""
        batches = self._batches()
        if not super_batch:
            return batches
        # On the device once they are stacked: by now they have been checked.
        stacked = importlib.import_module("keras.src.trainers.data_adapters.data_adapter_utils")
        stack = importlib.import_module("jax.numpy").stack
        return stacked.super_batch_iterator(batches, super_batch, stack_fn=stack)

    def _batches(self) -> Iterator[Any]:
        for batch in self._adapter.get_jax_iterator():
            _check(keras.utils.unpack_x_y_sample_weight(batch)[1])
            yield batch


@contextlib.contextmanager
def weights_kept(model: Any) -> Iterator[None]:
    """Give a model its weights back where Keras stops with an error, on JAX.

    There Keras takes the values out of the variables before it asks for the first batch, and an
    error in that batch would leave the variables empty.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else ())]
    before = [(variable, variable._value) for variable in variables]
    try:
        yield
    except BaseException:
        model.jax_state_sync()  # the values after the last whole step, if there was one
        model._jax_state = None
        for variable, value in before:
            if variable._value is None and value is not None:
                variable.assign(value)
        raise


def _cuts_ids() -> bool:
    return keras.backend.backend() == "jax" and checks.label_dtype() == "int32"


def _check(y: Any) -> None:
    for ids in keras.tree.flatten(y):
        if isinstance(ids, np.ndarray) and ids.dtype.kind in "iu":
            checks.within_32_bits(ids, "y")
