"""Where the examples of a run come from, and which classes train, choose and test."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from kinfold import datasets
from kinfold.datasets import DATA_FORMS, Split, Splits, shown
from kinfold.datasets._names import brief
from kinfold.datasets._parts import check_kind, divided, holds_images, open_source
from kinfold.datasets._source import Source
from kinfold.datasets._split import check_classes, select_classes, select_rows
from kinfold.datasets._words import WHOLE
from kinfold.training import listing, run_folder, unreadable
from kinfold.training.run_folder import RunFolder
from kinfold.training.settings import Settings

GLYPHS = "glyphs"
MIN_CLASSES = 6  # two to train on, two to choose the best model by, two to test on
GLYPH_SIZE, FOLDER_SIZE = 32, 64  # pixels, where no image size is given

# Fixed, so that every run on the same data is tested on the same classes, whatever its seed.
_SEED = 0
_TEST, _VALIDATION = 0.3, 0.15

Drawn = Callable[[int, int], None]
Size = int | tuple[int, int, int] | None


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


def load_splits(
    data: str, image_size: Size, drawn: Drawn | None = None, group: str | None = None
) -> Splits:
    """The splits that `load` gives."""
    return load(data, image_size, drawn, group)[0]


def load(
    data: str, image_size: Size, drawn: Drawn | None = None, group: str | None = None
) -> tuple[Splits, Source | None]:
    """Open data as it is divided, and divide what is not: 60 % train, 10 % choose, 30 % test.

    Where the data has parts of its own, they are taken. A validation part that is missing is
    taken from the training classes, and so is a test part, each with all the examples of its
    classes. Examples are read as they are needed, but glyphs, which are drawn now.

    Args:
        data: as `kinfold.datasets.DATA_FORMS` says.
        image_size: height and width to draw or read images at, in pixels, or (height, width,
            channels); None for the default.
        drawn: called with (drawings or files done, and in all) while glyphs are drawn or images
            looked at.
        group: a column of a table; its values, not the classes, are divided, so that all examples
            of one value are in the same split.

    Returns:
        (train, validation, test), and what their examples come from; None for glyphs. The three
        have different classes, except those that the parts of the data have in common:
        `classes_are_unseen` tells. With `group` a class may be in all three.

    Raises:
        FileNotFoundError: there is no such data.
        ValueError: too few classes, or too few examples of each.
    """
    check_source(data, None)
    if data == GLYPHS:
        if group is not None:
            raise ValueError(f"Glyphs have no column {brief(group)} to keep together.")
        train, test = _glyphs(_image_shape(image_size or GLYPH_SIZE, channels=1), drawn)
        return _divided(data, {"train": train, "test": test}), None
    source = _opened(data, image_size, drawn, group)
    if source.groups is None:
        splits = _divided(data, divided(source))
    elif source.parts is not None:
        raise ValueError(
            f"{shown(data)} has parts of its own, so that no column divides it: leave out the "
            f"column {brief(group)}, or the one of parts."
        )
    else:
        splits = _by_group(data, source)
    return listing.keep_apart(splits), source


def again(
    folder: RunFolder, settings: Settings, drawn: Drawn | None = None
) -> tuple[Splits, list[str]]:
    """Open the data of a run that has begun: the same splits, and what has changed in it.

    Raises:
        FileNotFoundError: the data is gone.
        ValueError: it is not that of the run any more.
    """
    if not folder.listing.exists():
        return run_folder.read_splits(folder.data), []  # a run of an earlier version
    data = settings.data
    listed = listing.read(folder.listing)
    shape = tuple(listed.meta["shape"])
    notes: list[str] = []
    if "root" in listed.meta:
        splits, notes = listing.images(listed)
    elif "digests" in listed.meta:
        splits = load_splits(data, shape[0], drawn)
        listing.drawn(listed, splits)
    else:
        check_source(data, None)
        source = _opened(data, shape if len(shape) == 3 else None, drawn, settings.split_by)
        splits, notes = listing.rows(listed, source, data)
    unreadable.recall(folder.unreadable, listing.keep_apart(splits))
    return splits, notes


def training_classes(folder: RunFolder) -> set[str]:
    """The names of the classes that a run trains on."""
    if folder.listing.exists():
        return set(listing.read(folder.listing).names("train"))
    return set(run_folder.read_splits(folder.data).train.names) if folder.data.exists() else set()


def _glyphs(shape: tuple[int, ...], drawn: Drawn | None) -> tuple[Split, Split]:
    if shape != (shape[0], shape[0], 1):
        raise ValueError(f"Glyphs are square and grey; the model takes {_shape(shape)}.")
    return datasets.glyphs(size=shape[0], progress=drawn)


def _opened(data: str, image_size: Size, drawn: Drawn | None, group: str | None) -> Source:
    height, width, channels = _image_shape(image_size or FOLDER_SIZE, channels=3)
    return open_source(Path(data), (height, width), channels, group=group, progress=drawn)


def _image_shape(size: int | tuple[int, int, int], channels: int) -> tuple[int, int, int]:
    return (size, size, channels) if isinstance(size, int) else size


def _by_group(data: str, source: Source) -> Splits:
    assert source.groups is not None
    values, group_of = np.unique(np.array(source.groups), return_inverse=True)
    if len(values) < 3:
        raise ValueError(
            f"{shown(data)} has {len(values)} groups to divide. Training needs three at least: "
            "one to train on, one to choose the best model by, one to test on."
        )
    order = np.random.default_rng(_SEED).permutation(len(values))
    test = max(1, round(_TEST * len(values)))
    validation = max(1, round(_VALIDATION * (len(values) - test)))
    part = np.zeros(len(values), int)
    part[order[:test]], part[order[test : test + validation]] = 2, 1
    train, chosen_by, tested = (
        select_rows(source.split, np.flatnonzero(part[group_of] == k)) for k in range(3)
    )
    return _checked(data, Splits(train, chosen_by, tested))


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
    return _checked(data, Splits(train, validation, test))


def _checked(data: str, splits: Splits) -> Splits:
    source = shown(data)
    for split, name in zip(splits, ("training", "validation", "test"), strict=True):
        check_classes(split.names, f"The {name} part of {source}")
        if np.bincount(split.y).max() < 2:
            raise ValueError(
                f"No {name} class of {source} has two examples, so that there is nothing to find."
            )
    return splits


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
    if data == GLYPHS:
        return _glyphs(shape, drawn)[1], "the test characters"
    images = holds_images(Path(data))
    if images and len(shape) != 3:
        raise ValueError(f"{shown(data)} holds images; the model takes {_shape(shape)}.")
    height, width, channels = shape if images else (1, 1, 1)
    source = open_source(Path(data), (height, width), channels, only="test", progress=drawn)
    ((part, split),) = divided(source, only="test").items()
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
