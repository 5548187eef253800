"""The settings of a run: for each its type, default, bounds and help, all written once.

The command line, the checks, the docstring of `kinfold.training.settings.Settings` and the table in
docs/training.md follow from the fields of `Fields`. This module stands beside the package because
importing anything of `kinfold` imports Keras, and `kinfold train --help` must not.
"""

import math
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from typing import Any, get_type_hints

from _kinfold_text import DATA_FORMS, did_you_mean, in_words, is_of, parse

# The names of `--loss`, and the classes of kinfold.losses that they stand for.
LOSSES = {
    "circle": "CircleLoss",
    "multi-similarity": "MultiSimilarityLoss",
    "triplet": "TripletLoss",
    "sup-con": "SupConLoss",
    "nt-xent": "NTXentLoss",
    "soft-nearest-neighbor": "SoftNearestNeighborLoss",
    "lifted-structure": "LiftedStructureLoss",
    "generalized-lifted-structure": "GeneralizedLiftedStructureLoss",
    "n-pairs": "NPairsLoss",
    "margin": "MarginLoss",
    "angular": "AngularLoss",
    "fast-ap": "FastAPLoss",
    "pair-contrastive": "PairContrastiveLoss",
    "contrastive": "PairContrastiveLoss",  # the name that runs of earlier versions have
    "siamese-contrastive": "ContrastiveLoss",
    "arc-face": "ArcFaceLoss",
    "cos-face": "CosFaceLoss",
    "proxy-nca": "ProxyNCALoss",
    "proxy-anchor": "ProxyAnchorLoss",
    "soft-triple": "SoftTripleLoss",
    "info-nce": "InfoNCELoss",
    "sig-lip": "SigLIPLoss",
}
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
AUGMENTATIONS = ("none", "light", "photo")
GROUPS = ("Run", "Data", "Model", "Loss", "Batches", "Optimisation")


@dataclass(frozen=True)
class About:
    """What the command line, the checks and the docs need to know of a setting.

    Args:
        group: the heading that it stands under.
        what: what it is, the first sentence of the help without its full stop.
        more: further sentences.
        default: the default in words; None for the value itself.
        metavar: what stands for the value in the help.
        least: the smallest value.
        above: the value that it must be greater than.
        below: the value that it must be less than.
        choices: the values that it can have, if there are few.
        option: its option, if that is not its name.
    """

    group: str
    what: str
    more: str = ""
    default: str | None = None
    metavar: str = "N"
    least: int | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    option: str = ""

    def help(self, value: Any) -> str:
        """Return the help with its default, which is `value` where no words were given."""
        default = self.default
        if default is None and isinstance(value, (int, float, str)) and value is not False:
            default = str(value)
        first = f"{self.what} (default {default})." if default else f"{self.what}."
        return f"{first} {self.more}".strip()


def _setting(value: Any, group: str, what: str, **about: Any) -> Any:
    return field(default=value, metadata={"about": About(group, what, **about)})


@dataclass(frozen=True)
class Fields:
    """The settings of a run as plain values; `kinfold.training.Settings` makes its parts of them.

    A field's `metadata["about"]` is its `About`. None stands for a default that suits the loss or
    the data.
    """

    data: str = field(
        metadata={
            "about": About(
                "Data",
                f"What to train on: {DATA_FORMS.removesuffix('.')}",
                metavar="DATA",
            )
        }
    )
    loss: str = _setting(
        "circle",
        "Loss",
        "Name of the loss",
        more=f"One of {', '.join(LOSSES)}. The losses info-nce, sig-lip and siamese-contrastive "
        "take two examples per class: the examples of a class are paired two by two. The name "
        "contrastive is short for pair-contrastive.",
        metavar="NAME",
    )
    loss_options: Mapping[str, Any] | None = _setting(
        None,
        "Loss",
        "An argument of the loss, such as margin=0.2",
        more="Give it once for each argument. An unknown name is answered with the arguments that "
        "the loss has.",
        metavar="NAME=VALUE",
        option="--loss-option",
    )
    margin: float | None = _setting(
        None,
        "Loss",
        "Short for --loss-option margin=X, or negative_margin=X for a loss that has that instead",
        default="0.25 for circle, else that of the loss",
        metavar="X",
    )
    gamma: float | None = _setting(
        None,
        "Loss",
        "Short for --loss-option gamma=X",
        default="that of the loss, 80 for circle",
        metavar="X",
    )
    memory_size: int = _setting(
        0,
        "Loss",
        "Number of examples of earlier batches that each batch is also compared with",
        more="For losses over pairs, except n-pairs.",
        least=0,
    )
    memory_warmup: int = _setting(
        0,
        "Loss",
        "Number of steps in which the memory is only filled",
        least=0,
    )
    backbone: str | None = _setting(
        None,
        "Model",
        "Network that turns an image into features",
        more="It is small, a light convolutional network, or a name in keras.applications, such "
        "as MobileNetV2.",
        default="small for images up to 64 x 64 pixels",
        metavar="NAME",
    )
    weights: str = _setting(
        "none",
        "Model",
        "Weights that the backbone begins with",
        more="They are none (random), imagenet (downloaded by Keras) or a file: the model.keras of "
        "an earlier run, or a .keras, .weights.h5 or .h5 file of the backbone.",
        metavar="WHICH",
    )
    freeze: int | str = _setting(
        0,
        "Model",
        "Number of first layers of the backbone that are not trained, or all",
        metavar="N|all",
        least=0,
        choices=("all",),
    )
    augment: str = _setting(
        "none",
        "Data",
        "Random changes to the images, in training only",
        more="With light they are moved and scaled a little; with photo they are also mirrored, "
        "and change in brightness and contrast.",
        metavar="KIND",
        choices=AUGMENTATIONS,
    )
    precision: str = _setting(
        "float32",
        "Model",
        "Precision of the computation",
        more=f"One of {', '.join(PRECISIONS)}.",
        metavar="NAME",
        choices=PRECISIONS,
    )
    image_size: int | None = _setting(
        None,
        "Data",
        "Height and width to read or draw images at, in pixels",
        default="32 for glyphs; 64 for folders, or 160 with a network of keras.applications",
        least=8,
    )
    embedding_size: int | None = _setting(
        None,
        "Model",
        "Number of dimensions of the embedding",
        default="128 for images, and as many as the input has for vectors",
        least=1,
    )
    chunk: int | None = _setting(
        None,
        "Model",
        "Number of examples that go through the network at once in training",
        more="The loss still sees the whole batch. Chunks take less memory and one more forward "
        "pass.",
        default="the whole batch",
        least=1,
    )
    classes_per_batch: int | None = _setting(
        None,
        "Batches",
        "Number of classes in a batch",
        default="32, or all classes if there are fewer",
        least=2,
    )
    examples_per_class: int = _setting(
        4, "Batches", "Number of examples of each class in a batch", least=2
    )
    steps_per_epoch: int = _setting(
        50, "Optimisation", "Number of training steps per epoch", least=1
    )
    epochs: int = _setting(
        20,
        "Optimisation",
        "Number of epochs to train",
        more="With --resume it can be raised.",
        least=1,
    )
    patience: int | None = _setting(
        None,
        "Optimisation",
        "Stop after this many epochs without a better val_map@r",
        more="With --resume it can be changed.",
        default="train all epochs",
        least=1,
    )
    learning_rate: float | None = _setting(
        None,
        "Optimisation",
        "The highest learning rate, after a warm-up over the first tenth of the steps and before a "
        "cosine decay",
        default="0.001 with a network of keras.applications, else 0.01; a tenth of that with "
        "--weights",
        metavar="X",
        above=0.0,
        below=math.inf,
    )
    seed: int = _setting(
        0,
        "Optimisation",
        "Seed of the weights, the batches and the augmentation",
        least=0,
        below=2**32,
    )
    tensorboard: bool = _setting(False, "Run", "Also write logs for TensorBoard")

    def check_values(self) -> None:
        """Raise ValueError for a setting of the wrong type or out of its bounds."""
        for one in settings():
            check(getattr(self, one.name), one)


def settings() -> tuple[Field, ...]:
    """The fields, in the order of the command line."""
    return tuple(sorted(fields(Fields), key=lambda one: GROUPS.index(about(one).group)))


def about(one: Field) -> About:
    """What is known of a field."""
    return one.metadata["about"]


def option(one: Field) -> str:
    """The option of a field: --image-size; of the data, which is an argument, DATA."""
    if one.default is MISSING:
        return about(one).metavar
    return about(one).option or "--" + one.name.replace("_", "-")


@cache
def _types() -> dict[str, Any]:
    return get_type_hints(Fields)


def read(text: str, one: Field) -> Any:
    """Read a setting from the command line; ValueError if its text is not of its type."""
    return parse(text, _types()[one.name], option(one))


def check(value: Any, one: Field) -> None:
    """Raise ValueError for a value that is not of a setting's type or out of its bounds."""
    it, name, kind = about(one), one.name, _types()[one.name]
    unknown = it.choices and isinstance(value, str) and value not in it.choices
    if unknown or not is_of(value, kind):
        expected = in_words(kind, it.choices)
        near = did_you_mean(value, it.choices) if isinstance(value, str) else ""
        raise ValueError(f"`{name}` must be {expected}.{near} Received: {name}={value!r}.")
    if not isinstance(value, (int, float)):
        return
    if it.least is not None and value < it.least:
        raise ValueError(f"`{name}` must be at least {it.least}. Received: {name}={value}.")
    if it.above is not None and not value > it.above:
        raise ValueError(f"`{name}` must be a number above {it.above:g}. Received: {name}={value}.")
    if it.below is not None and not value < it.below:
        limit = "2^32" if it.below == 2**32 else f"{it.below:g}"
        raise ValueError(f"`{name}` must be below {limit}. Received: {name}={value}.")


def arguments(indent: str = " " * 4) -> Iterator[str]:
    """The lines of the "Args:" of a docstring."""
    for one in fields(Fields):
        text = f"{one.name}: {about(one).help(one.default)}"
        yield from textwrap.wrap(text, 100, initial_indent=indent * 2, subsequent_indent=indent * 3)
