"""A map of embeddings, as a figure of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kinfold.compat.tensorflow_similarity import drawing
from kinfold.core.checks import Tensor
from kinfold.metrics.task import to_numpy


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
    figure = drawing.figure((plot_size / drawing.INCH, plot_size / drawing.INCH), show)
    axis = figure.subplots()
    axis.set_axis_off()
    named = [""] * len(rows)
    if labels is not None:
        named = [drawing.label_of(drawing.at(labels, i), class_mapping) for i in range(len(rows))]
    names = np.array(named)
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
            drawn = drawing.image_of(image)
            zoom = image_size / max(drawn.shape[:2]) * 72 / drawing.INCH
            axis.add_artist(
                AnnotationBbox(OffsetImage(drawn, zoom=zoom, cmap="gray"), point, pad=0)
            )
    return drawing.shown(figure, show)
