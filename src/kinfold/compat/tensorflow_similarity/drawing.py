"""What the pictures of `visualization` share."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kinfold.metrics.task import to_numpy

INCH = 100  # pixels


def figure(size: tuple[float, float], show: bool) -> Any:
    try:
        if show:
            from matplotlib import pyplot

            return pyplot.figure(figsize=size)
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Pictures need matplotlib: pip install kinfold[train]") from error
    return Figure(figsize=size)


def shown(figure: Any, show: bool) -> Any:
    if show:
        from matplotlib import pyplot

        pyplot.show()
    return figure


def image_of(value: Any) -> np.ndarray:
    image = to_numpy(value)
    return image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image


def at(labels: Any, i: int) -> Any:
    if labels is None:
        return i
    label = labels[i]
    return label if isinstance(label, str) else int(to_numpy(label).reshape(()))


def label_of(label: Any, names: Any) -> str:
    if label is None:
        return "No Label"
    if names is None:
        return str(label)
    if isinstance(names, Mapping):
        return str(names.get(label, label))
    return str(names[label])
