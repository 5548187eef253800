"""Where the examples of a run come from, and which classes train, choose and test."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from kinfold import datasets
from kinfold.datasets import Split

GLYPHS = "glyphs"
MIN_CLASSES = 6
FOLDER_SIZE = 64  # pixels, where no image size is given

# Fixed, so that every run on the same data is tested on the same classes, whatever its seed.
_SEED = 0
_TEST, _VALIDATION = 0.3, 0.15

_READERS = {".npz": datasets.arrays, ".parquet": datasets.parquet}
_KNOWN = (
    "DATA is 'glyphs', a folder with a folder of images a class, an .npz file with arrays x and y, "
    "or a .parquet file with columns embedding and label."
)

Splits = tuple[Split, Split, Split]
Drawn = Callable[[int, int], None]


def check_source(data: str, image_size: int | None) -> None:
    """Raise where `data` is nothing that `load_splits` and `load_whole` can read."""
    if data == GLYPHS:
        return
    path = Path(data)
    if not path.exists():
        raise FileNotFoundError(f"There is no {data}. {_KNOWN}")
    if path.is_file() and path.suffix not in _READERS:
        raise ValueError(f"{data} is a file, and not an .npz or .parquet. {_KNOWN}")
    if path.is_file() and image_size is not None:
        raise ValueError(f"An image size is for folders and glyphs; {data} has its own.")


def load_splits(data: str, image_size: int | None, drawn: Drawn | None = None) -> Splits:
    """Load data and divide its classes: about 60 % train, 10 % choose the best model, 30 % test.

    Args:
        data: "glyphs", a folder of image folders, or an .npz or .parquet file.
        image_size: height and width to draw or read images at, in pixels; None for the default.
        drawn: called with (drawings done, drawings in all) while glyphs are drawn.

    Returns:
        (train, validation, test), each of classes that the others have none of.

    Raises:
        FileNotFoundError: there is no such data.
        ValueError: too few classes, or too few examples of each.
    """
    check_source(data, image_size)
    if data == GLYPHS:
        train, test = datasets.glyphs(size=image_size or 32, progress=drawn)
    else:
        whole = _read(data, image_size or FOLDER_SIZE, drawn)
        classes = len(whole.names)
        if classes < MIN_CLASSES:
            raise ValueError(
                f"{data} holds {classes} classes. Training needs at least {MIN_CLASSES}: two to "
                "train on, two others to choose the best model by, two others to test on."
            )
        train, test = datasets.split_classes(whole, _TEST, _SEED)
        del whole  # the parts are copies, and it may be large
    fraction = max(_VALIDATION, 2 / len(train.names))
    train, validation = datasets.split_classes(train, fraction, _SEED)
    for split, name in ((train, "training"), (validation, "validation"), (test, "test")):
        if np.bincount(split.y).max() < 2:
            raise ValueError(
                f"No {name} class of {data} has two examples, so that there is nothing to find."
            )
    return train, validation, test


def load_whole(data: str, shape: tuple[int, ...], drawn: Drawn | None = None) -> Split:
    """Load data to evaluate a model on: of glyphs the test characters, of other data all of it.

    Args:
        data: "glyphs", a folder of image folders, or an .npz or .parquet file.
        shape: of the inputs of the model, without the batch.
        drawn: called with (drawings done, drawings in all) while glyphs are drawn.

    Raises:
        FileNotFoundError: there is no such data.
        ValueError: the examples do not have the shape that the model takes.
    """
    check_source(data, None)
    size = shape[0]
    if data == GLYPHS:
        if shape != (size, size, 1):
            raise ValueError(f"Glyphs are square and grey; the model takes {_shape(shape)}.")
        return datasets.glyphs(size=size, progress=drawn)[1]
    if Path(data).is_dir():
        if len(shape) != 3:
            raise ValueError(f"{data} holds images; the model takes {_shape(shape)}.")
        return datasets.image_folder(data, size=(size, shape[1]), channels=shape[2], progress=drawn)
    split = _arrays(data)
    if split.x.shape[1:] != shape:
        raise ValueError(
            f"{data} holds {_shape(split.x.shape[1:])}; the model takes {_shape(shape)}."
        )
    return split


def _read(data: str, size: int, drawn: Drawn | None) -> Split:
    if Path(data).is_dir():
        return datasets.image_folder(data, size=(size, size), progress=drawn)
    return _arrays(data)


def _arrays(data: str) -> Split:
    return _READERS[Path(data).suffix](data)


def _shape(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"vectors of {shape[0]}"
    return "images of " + " x ".join(str(size) for size in shape)
