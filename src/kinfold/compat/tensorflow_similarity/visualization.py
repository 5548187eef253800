"""`tensorflow_similarity.visualization`, as figures of matplotlib.

With `show=True` a figure is shown as pyplot shows one. With `show=False` it is only returned, for
`figure.savefig(path)` or a notebook.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kinfold.compat.tensorflow_similarity.types import Lookup
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.metrics.task import to_numpy

_INCH = 100  # pixels


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
    figure = _figure(fig_size, show)
    axes = figure.subplots(1, len(neighbors) + 1, squeeze=False)[0]
    axes[0].imshow(_image(example), cmap=cmap)
    axes[0].set_title(_label(example_class, class_mapping))
    for axis, one in zip(axes[1:], neighbors, strict=True):
        if one.data is None:
            raise ValueError(
                "Neighbours are drawn by their data, and one has none: pass `data=` when indexing."
            )
        same = one.label == example_class
        axis.imshow(_image(one.data), cmap=cmap if same else "Reds")
        axis.set_title(
            f"{_label(one.label, class_mapping)} - {one.distance:.5f}",
            color="black" if same else "firebrick",
        )
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    return _shown(figure, show)


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

    figure = _figure((8, 6), show)
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
    _shown(figure, show)
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
    figure = _figure(fig_size, show)
    axes = figure.subplots(-(-count // columns), columns, squeeze=False).reshape(-1)
    scale = abs(max_pixel_value - min_pixel_value)
    for i, axis in enumerate(axes):
        axis.set_axis_off()
        if i >= count:
            continue
        row = np.concatenate([(view[i] - min_pixel_value) / scale for view in arrays], axis=1)
        axis.imshow(_image(np.clip(row, 0, 1)), cmap="gray")
        told = [] if labels is None and predictions is None else [f"Label: {_at(labels, i)}"]
        if predictions is not None:
            told.append(f"Pred: {float(to_numpy(predictions)[i].reshape(())):.5f}")
        axis.set_title(" | ".join(told))
    return _shown(figure, show)


def projector(
    embeddings: Tensor,
    labels: Sequence[Any] | None = None,
    class_mapping: Mapping[int, str] | Sequence[str] | None = None,
    images: Tensor | None = None,
    image_size: int = 64,
    tooltips_info: Any = None,
    pt_size: int = 3,
    colorize: bool = True,
    pastel_factor: float = 0.1,
    plot_size: int = 600,
    active_drag: str | None = None,
    densmap: bool | None = None,
    show: bool = True,
) -> Any:
    """Draw embeddings as points of a plane, near ones near one another, by t-SNE.

    `kinfold train` writes such a map into its report, and `kinfold serve` shows one to move in.

    Args:
        embeddings: floating [n, d].
        labels: class of each, [n], or None.
        class_mapping: the name of each class id, or None.
        images: drawn in place of points, [n, height, width, channels], or None.
        image_size: pixels of an image.
        tooltips_info, active_drag, densmap: None.
        pt_size: size of a point.
        colorize: whether classes have colours.
        pastel_factor: how pale the colours are, 0 to 1.
        plot_size: pixels of the figure.
        show: whether the figure is shown.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: what a picture has no use for, or other numbers of labels or images.
        ImportError: matplotlib or scikit-learn is not installed.
    """
    unused = {"tooltips_info": tooltips_info, "active_drag": active_drag, "densmap": densmap}
    for name, value in unused.items():
        if value is not None:
            raise ValueError(
                f"This is a picture by t-SNE, in which `{name}` has no use: leave it out, or look "
                "at the map of `kinfold serve`."
            )
    rows = to_numpy(embeddings)
    for name, column in (("labels", labels), ("images", images)):
        if column is not None and len(column) != len(rows):
            raise ValueError(
                f"`{name}` must hold one for each of the {len(rows)} embeddings. Received "
                f"{len(column)}."
            )
    from kinfold.training.report.measures.plane import plane

    points = plane(rows)
    figure = _figure((plot_size / _INCH, plot_size / _INCH), show)
    axis = figure.subplots()
    axis.set_axis_off()
    names = np.array(["" if labels is None else _label(_at(labels, i), class_mapping)
                      for i in range(len(rows))])  # fmt: skip
    classes = np.unique(names)
    import matplotlib

    palette = matplotlib.colormaps["hsv"](np.linspace(0, 0.9, len(classes)))[:, :3]
    palette = palette * (1 - pastel_factor) + pastel_factor
    coloured = colorize and labels is not None
    for name, colour in zip(classes, palette, strict=True):
        part = points[names == name]
        shade = colour if coloured else "tab:blue"
        axis.scatter(part[:, 0], part[:, 1], s=pt_size**2, color=shade, label=name)
    if coloured and len(classes) <= 20:
        axis.legend(fontsize="small", markerscale=2)
    if images is not None:
        from matplotlib.offsetbox import AnnotationBbox, OffsetImage

        for image, point in zip(images, points, strict=True):
            drawn = _image(image)
            zoom = image_size / max(drawn.shape[:2]) * 72 / _INCH
            axis.add_artist(
                AnnotationBbox(OffsetImage(drawn, zoom=zoom, cmap="gray"), point, pad=0)
            )
    return _shown(figure, show)


def _figure(size: tuple[float, float], show: bool) -> Any:
    try:
        if show:
            from matplotlib import pyplot

            return pyplot.figure(figsize=size)
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Pictures need matplotlib: pip install kinfold[train]") from error
    return Figure(figsize=size)


def _shown(figure: Any, show: bool) -> Any:
    if show:
        from matplotlib import pyplot

        pyplot.show()
    return figure


def _image(value: Any) -> np.ndarray:
    image = to_numpy(value)
    return image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image


def _at(labels: Any, i: int) -> Any:
    if labels is None:
        return i
    label = labels[i]
    return label if isinstance(label, str) else int(to_numpy(label).reshape(()))


def _label(label: Any, names: Any) -> str:
    if label is None:
        return "No Label"
    if names is None:
        return str(label)
    if isinstance(names, Mapping):
        return str(names.get(label, label))
    return str(names[label])
