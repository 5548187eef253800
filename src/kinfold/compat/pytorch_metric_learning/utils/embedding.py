"""How testers, samplers and models for inference embed what they are given."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold.compat.pytorch_metric_learning.calls import Module


def embedded(models: tuple[Any, ...], x: Any, data_device: Any = None, dtype: Any = None) -> Any:
    """What models, one after the other, make of a batch, in inference and without gradients.

    Args:
        models: each is anything that can be called on a batch, or None.
        x: a batch: an array, a tensor, or what the first model takes.
        data_device: for PyTorch, where the batch is moved to; None for Keras's device.
        dtype: what the batch is cast to; None for its own.
    """
    if data_device is not None and Module is object:
        raise NotImplementedError(
            "data_device is for PyTorch. On this backend leave it out: Keras places the batch."
        )
    if ops.is_tensor(x) or isinstance(x, np.ndarray):
        if data_device is None:
            x = ops.convert_to_tensor(x)
        else:
            import torch

            x = torch.as_tensor(x).to(data_device)
        if dtype is not None:
            x = ops.cast(x, keras.backend.standardize_dtype(dtype))
    for model in models:
        if model is not None:
            x = _called(model, x)
    return x


def _called(model: Any, x: Any) -> Any:
    if hasattr(model, "eval"):
        model.eval()
    training = {"training": False} if isinstance(model, keras.layers.Layer) else {}
    if Module is object:
        return ops.stop_gradient(model(x, **training))
    import torch

    with torch.no_grad():
        return model(x, **training)


def batches(
    dataset: Any, batch_size: int, collate_fn: Any = None, workers: int | None = None
) -> Iterator[Any]:
    """The items of a dataset in order, `batch_size` at a time.

    Args:
        dataset: has a length, and items by position: tuples of arrays.
        batch_size: items of a batch.
        collate_fn: makes a batch of a list of items; None stacks them.
        workers: processes that read, with PyTorch; None for 2 there, as in the peer.
    """
    if Module is not object:
        from torch.utils.data import DataLoader

        number = 2 if workers is None else workers
        loader = DataLoader(dataset, batch_size, collate_fn=collate_fn, num_workers=number)
        return iter(loader)
    if workers:
        raise NotImplementedError(
            "Processes that read are PyTorch's. On this backend leave dataloader_num_workers out. "
            f"Received: dataloader_num_workers={workers}."
        )
    return _in_order(dataset, batch_size, collate_fn or _stacked)


def _in_order(dataset: Any, batch_size: int, collate_fn: Any) -> Iterator[Any]:
    for start in range(0, len(dataset), batch_size):
        rows = range(start, min(start + batch_size, len(dataset)))
        yield collate_fn([dataset[i] for i in rows])


def _stacked(items: list[Any]) -> Any:
    if isinstance(items[0], tuple | list):
        return tuple(_stacked(list(part)) for part in zip(*items, strict=True))
    return np.stack([np.asarray(item) for item in items])


def native(array: np.ndarray) -> Any:
    """An array as a tensor on PyTorch, where code of the peer's users expects one."""
    return array if Module is object else ops.convert_to_tensor(array)


def as_numpy(values: Any) -> np.ndarray:
    """An array, or a tensor of the backend, as NumPy's."""
    return np.asarray(ops.convert_to_numpy(values) if ops.is_tensor(values) else values)
