"""Where the examples of a run come from, and which classes train, choose and test."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from kinfold import datasets
from kinfold.datasets import DATA_FORMS, Split, Splits, shown
from kinfold.datasets._parts import check_kind, holds_images
from kinfold.datasets._split import check_classes, select_classes
from kinfold.datasets._words import WHOLE

GLYPHS = "glyphs"
MIN_CLASSES = 6  # two to train on, two to choose the best model by, two to test on
FOLDER_SIZE = 64  # pixels, where no image size is given

# Fixed, so that every run on the same data is tested on the same classes, whatever its seed.
_SEED = 0
_TEST, _VALIDATION = 0.3, 0.15

Drawn = Callable[[int, int], None]


def check_source(data: str, image_size: int | None) -> None:
    """Raise where `data` is nothing that `load_splits` and `load_whole` can read."""
    if data == GLYPHS:
        return
    path = Path(data)
    if not path.exists():
        raise FileNotFoundError(f"There is no {shown(data)}. DATA is {DATA_FORMS}")
    check_kind(path)
    if image_size is not None and not holds_images(path):
        raise ValueError(f"An image size is for image files and glyphs; {shown(data)} has its own.")


def load_splits(data: str, image_size: int | None, drawn: Drawn | None = None) -> Splits:
    """Load data as it is divided, and divide what is not: 60 % train, 10 % choose, 30 % test.

    Where the data has parts of its own, they are taken. A validation part that is missing is
    taken from the training classes, and so is a test part, each with all the examples of its
    classes.

    Args:
        data: as `kinfold.datasets.DATA_FORMS` says.
        image_size: height and width to draw or read images at, in pixels; None for the default.
        drawn: called with (drawings or files done, and in all) while glyphs are drawn or images
            read.

    Returns:
        (train, validation, test). Their classes are different ones, but for those that the parts
        of the data have in common: `classes_are_unseen` of the result tells.

    Raises:
        FileNotFoundError: there is no such data.
        ValueError: too few classes, or too few examples of each.
    """
    check_source(data, None)
    if data == GLYPHS:
        train, test = datasets.glyphs(size=image_size or 32, progress=drawn)
        return _divided(data, {"train": train, "test": test})
    size = image_size or FOLDER_SIZE
    parts = datasets.parts(data, (size, size), progress=drawn)
    return _divided(data, parts)


def _divided(data: str, parts: dict[str, Split]) -> Splits:
    source = shown(data)
    if WHOLE not in parts and "train" not in parts:
        raise ValueError(
            f"{source} has no part to train on. Its parts are {', '.join(parts)}; add train."
        )
    train = parts[WHOLE] if WHOLE in parts else parts["train"]
    validation, test = parts.get("validation"), parts.get("test")
    needed = MIN_CLASSES - 2 * (validation is not None) - 2 * (test is not None)
    if len(train.names) < needed:
        others = "" if validation is not None else ", two others to choose the best model by"
        others += "" if test is not None else ", two others to test on"
        of = "" if WHOLE in parts else "The train part of "
        raise ValueError(
            f"{of}{source} holds {len(train.names)} classes. Training needs at least {needed}: two "
            f"to train on{others}."
        )
    if test is None:
        train, test = _held_out(train, _TEST)
        if validation is not None:  # whose classes may be those of train
            held = set(test.names)
            validation = select_classes(
                validation, np.array([name not in held for name in validation.names])
            )
    if validation is None:
        train, validation = _held_out(train, _VALIDATION)
    for split, name in ((train, "training"), (validation, "validation"), (test, "test")):
        check_classes(split.names, f"The {name} part of {source}")
        if np.bincount(split.y).max() < 2:
            raise ValueError(
                f"No {name} class of {source} has two examples, so that there is nothing to find."
            )
    return Splits(train, validation, test)


def _held_out(train: Split, fraction: float) -> tuple[Split, Split]:
    """Hold out a share of the classes, and two at least."""
    return datasets.split_classes(train, max(fraction, 2 / len(train.names)), _SEED)


def load_whole(data: str, shape: tuple[int, ...], drawn: Drawn | None = None) -> Split:
    """Load data to evaluate a model on: its test part if it has one, else all of it.

    Args:
        data: as `kinfold.datasets.DATA_FORMS` says.
        shape: of the inputs of the model, without the batch.
        drawn: called with (drawings or files done, and in all) while glyphs are drawn or images
            read.

    Raises:
        FileNotFoundError: there is no such data.
        ValueError: the examples do not have the shape that the model takes.
    """
    return load_evaluated(data, shape, drawn)[0]


def load_evaluated(
    data: str, shape: tuple[int, ...], drawn: Drawn | None = None
) -> tuple[Split, str]:
    """As `load_whole`, with words for what was loaded, such as "all of photos"."""
    check_source(data, None)
    size = shape[0]
    if data == GLYPHS:
        if shape != (size, size, 1):
            raise ValueError(f"Glyphs are square and grey; the model takes {_shape(shape)}.")
        return datasets.glyphs(size=size, progress=drawn)[1], "the test characters"
    images = holds_images(Path(data))
    if images and len(shape) != 3:
        raise ValueError(f"{shown(data)} holds images; the model takes {_shape(shape)}.")
    height, width, channels = shape if images else (1, 1, 1)
    parts = datasets.parts(data, (height, width), channels, only="test", progress=drawn)
    ((part, split),) = parts.items()
    which = f"{'all' if part == WHOLE else 'the test part'} of {shown(data)}"
    check_classes(split.names, which)
    if split.x.shape[1:] != shape:
        raise ValueError(
            f"{shown(data)} holds {_shape(split.x.shape[1:])}; the model takes {_shape(shape)}."
        )
    return split, which


def _shape(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"vectors of {shape[0]}"
    return "images of " + " x ".join(str(size) for size in shape)
