"""`tensorflow_similarity.visualization`, as figures of matplotlib.

With `show=True` a figure is shown as pyplot shows one. With `show=False` it is only returned, for
`figure.savefig(path)` or a notebook.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kinfold.compat.tensorflow_similarity import drawing
from kinfold.compat.tensorflow_similarity.projection import projector as projector
from kinfold.compat.tensorflow_similarity.types import Lookup
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.metrics.task import to_numpy


def viz_neigbors_imgs(
    example: Tensor,
    example_class: int | None,
    neighbors: Sequence[Lookup],
    class_mapping: Mapping[int, str] | Sequence[str] | None = None,
    fig_size: tuple[float, float] = (24, 4),
    cmap: str = "viridis",
    show: bool = True,
) -> Any:
    """Draw an image and the images of its neighbours, with their classes and distances.

    Neighbours of another class are drawn in red where images have one channel, and have a red
    title.

    Args:
        example: an image [height, width] or [height, width, channels].
        example_class: its class id, or None.
        neighbors: what a lookup found, with images as their data.
        class_mapping: the name of each class id; None shows the ids.
        fig_size: width and height in inches.
        cmap: colours of images with one channel.
        show: whether the figure is shown.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: a neighbour has no data: pass `data=` when indexing.
        ImportError: matplotlib is not installed.
    """
    figure = drawing.figure(fig_size, show)
    axes = figure.subplots(1, len(neighbors) + 1, squeeze=False)[0]
    axes[0].imshow(drawing.image_of(example), cmap=cmap)
    axes[0].set_title(drawing.label_of(example_class, class_mapping))
    for axis, one in zip(axes[1:], neighbors, strict=True):
        if one.data is None:
            raise ValueError(
                "Neighbours are drawn by their data, and one has none: pass `data=` when indexing."
            )
        same = one.label == example_class
        axis.imshow(drawing.image_of(one.data), cmap=cmap if same else "Reds")
        axis.set_title(
            f"{drawing.label_of(one.label, class_mapping)} - {one.distance:.5f}",
            color="black" if same else "firebrick",
        )
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    return drawing.shown(figure, show)


def confusion_matrix(
    y_pred: Tensor,
    y_true: Tensor,
    normalize: bool = True,
    labels: Sequence[Any] | None = None,
    title: str = "Confusion matrix",
    cmap: str = "Blues",
    show: bool = True,
) -> tuple[Any, np.ndarray]:
    """Draw how often examples of each class were taken for each class.

    Args:
        y_pred: class ids that were predicted [n], 0 or more.
        y_true: true class ids [n], 0 or more.
        normalize: whether each row is divided by its sum.
        labels: names of the classes; None leaves the ids.
        title, cmap: of the picture.
        show: whether the figure is shown.

    Returns:
        The axes, and the matrix [classes, classes], float32, rows being true classes.

    Raises:
        ValueError: different numbers, or a negative id such as that of no match.
        ImportError: matplotlib is not installed.
    """
    predicted, truth = (to_numpy(one).reshape(-1).astype(np.int64) for one in (y_pred, y_true))
    if len(predicted) != len(truth) or not len(truth):
        raise ValueError(
            "`y_pred` and `y_true` must hold as many class ids, one or more. Received "
            f"{len(predicted)} and {len(truth)}."
        )
    if min(predicted.min(), truth.min()) < 0:
        raise ValueError(
            "Class ids must be 0 or more. Received a negative one: pass no_match_label=a class of "
            "its own to match()."
        )
    classes = int(max(predicted.max(), truth.max())) + 1
    counts = np.zeros((classes, classes), np.float32)
    np.add.at(counts, (truth, predicted), 1)
    accuracy = float(np.trace(counts) / counts.sum())
    if normalize:
        totals = counts.sum(1, keepdims=True)
        counts = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)

    figure = drawing.figure((8, 6), show)
    axis = figure.subplots()
    figure.colorbar(axis.imshow(counts, interpolation="nearest", cmap=cmap))
    axis.set_title(title)
    if labels is not None:
        axis.set_xticks(np.arange(len(labels)), labels, rotation=45)
        axis.set_yticks(np.arange(len(labels)), labels)
    dark = counts.max() / (1.5 if normalize else 2.0)
    for (i, j), value in np.ndenumerate(counts):
        colour = "white" if value > dark else "black"
        text = f"{value:.2f}" if value > 0 else "0"
        axis.text(j, i, text, horizontalalignment="center", color=colour)
    axis.set_ylabel("True label")
    axis.set_xlabel(f"Predicted label\naccuracy={accuracy:0.4f}; misclass={1 - accuracy:0.4f}")
    figure.tight_layout()
    drawing.shown(figure, show)
    return axis, counts


def visualize_views(
    views: Sequence[Tensor],
    labels: Sequence[Any] | None = None,
    predictions: Tensor | None = None,
    num_imgs: int | None = None,
    views_per_col: int = 4,
    fig_size: tuple[float, float] = (24, 4),
    max_pixel_value: float = 1.0,
    min_pixel_value: float = 0.0,
    show: bool = True,
) -> Any:
    """Draw the views of examples side by side.

    Args:
        views: two or more, each of images [n, height, width, channels].
        labels: of the examples; None numbers them.
        predictions: a number for each example [n] or [n, 1], or None.
        num_imgs: how many examples; None for all.
        views_per_col: how many examples in a row of the figure.
        fig_size: width and height in inches.
        max_pixel_value, min_pixel_value: what is drawn as 1 and as 0.
        show: whether the figure is shown.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    arrays = [to_numpy(view) for view in views]
    count = len(arrays[0]) if num_imgs is None else checks.count(num_imgs, "num_imgs")
    if count > len(arrays[0]):
        raise ValueError(
            f"`num_imgs` must be at most {len(arrays[0])}, the number of examples. Received: "
            f"num_imgs={num_imgs}."
        )
    columns = checks.count(views_per_col, "views_per_col")
    figure = drawing.figure(fig_size, show)
    axes = figure.subplots(-(-count // columns), columns, squeeze=False).reshape(-1)
    scale = abs(max_pixel_value - min_pixel_value)
    for i, axis in enumerate(axes):
        axis.set_axis_off()
        if i >= count:
            continue
        row = np.concatenate([(view[i] - min_pixel_value) / scale for view in arrays], axis=1)
        axis.imshow(drawing.image_of(np.clip(row, 0, 1)), cmap="gray")
        told = [] if labels is None and predictions is None else [f"Label: {drawing.at(labels, i)}"]
        if predictions is not None:
            told.append(f"Pred: {float(to_numpy(predictions)[i].reshape(())):.5f}")
        axis.set_title(" | ".join(told))
    return drawing.shown(figure, show)
