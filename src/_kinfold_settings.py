"""The settings of a run: for each its type, default, bounds and help, all written once.

The command line, the checks, the docstring of `kinfold.training.settings.Settings` and the table in
docs/training.md follow from the fields of `Fields`. This module stands beside the package because
importing anything of `kinfold` imports Keras, and `kinfold train --help` must not.
"""

import math
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from _kinfold_about import About, about, check, setting
from _kinfold_text import DATA_FORMS

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
    "tuplet-margin": "TupletMarginLoss",
    "angular": "AngularLoss",
    "fast-ap": "FastAPLoss",
    "smooth-ap": "SmoothAPLoss",
    "pnp": "PNPLoss",
    "ranked-list": "RankedListLoss",
    "histogram": "HistogramLoss",
    "threshold-consistent-margin": "ThresholdConsistentMarginLoss",
    "intra-pair-variance": "IntraPairVarianceLoss",
    "pair-contrastive": "PairContrastiveLoss",
    "contrastive": "PairContrastiveLoss",  # the name that runs of earlier versions have
    "siamese-contrastive": "ContrastiveLoss",
    "arc-face": "ArcFaceLoss",
    "cos-face": "CosFaceLoss",
    "normalized-softmax": "NormalizedSoftmaxLoss",
    "sphere-face": "SphereFaceLoss",
    "large-margin-softmax": "LargeMarginSoftmaxLoss",
    "p2s-grad": "P2SGradLoss",
    "proxy-nca": "ProxyNCALoss",
    "proxy-anchor": "ProxyAnchorLoss",
    "soft-triple": "SoftTripleLoss",
    "manifold": "ManifoldLoss",
    "info-nce": "InfoNCELoss",
    "sig-lip": "SigLIPLoss",
}
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
AUGMENTATIONS = ("auto", "none", "light", "photo")
GROUPS = ("Run", "Data", "Model", "Loss", "Batches", "Optimisation")


@dataclass(frozen=True)
class Fields:
    """The settings of a run as plain values; `kinfold.training.Settings` makes its parts of them.

    A field's `metadata["about"]` is its `About`. None stands for a default that suits the loss or
    the data. What a field may hold is its `type`, so its annotation must not be a string.
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
    loss: str = setting(
        "circle",
        "Loss",
        "Name of the loss",
        more=f"One of {', '.join(LOSSES)}. The losses info-nce, sig-lip and siamese-contrastive "
        "take two examples per class: the examples of a class are paired two by two. The name "
        "contrastive is short for pair-contrastive.",
        metavar="NAME",
    )
    loss_options: Mapping[str, Any] | None = setting(
        None,
        "Loss",
        "An argument of the loss, such as margin=0.2",
        more="Give it once for each argument. The error for an unknown name lists the arguments "
        "that the loss has.",
        metavar="NAME=VALUE",
        option="--loss-option",
    )
    margin: float | None = setting(
        None,
        "Loss",
        "Short for --loss-option margin=X, or negative_margin=X for a loss that has that instead",
        default="0.25 for circle, else the loss's own",
        metavar="X",
    )
    gamma: float | None = setting(
        None,
        "Loss",
        "Short for --loss-option gamma=X",
        default="the loss's own, 80 for circle",
        metavar="X",
    )
    memory_size: int = setting(
        0,
        "Loss",
        "Number of examples of earlier batches that each batch is also compared with",
        more="For losses over pairs, except n-pairs.",
        least=0,
    )
    memory_warmup: int = setting(
        0,
        "Loss",
        "Number of steps at the start that only fill the memory",
        least=0,
    )
    backbone: str | None = setting(
        None,
        "Model",
        "Network that turns an image into features",
        more="It is small, a light convolutional network, or a name in keras.applications, such "
        "as MobileNetV2.",
        default="small for images up to 64 x 64 pixels",
        metavar="NAME",
    )
    weights: str = setting(
        "none",
        "Model",
        "Weights that the backbone begins with",
        more="They are none (random), imagenet (downloaded by Keras) or a file: the model.keras of "
        "an earlier run, or a .keras, .weights.h5 or .h5 file of the backbone.",
        metavar="WHICH",
    )
    freeze: int | str = setting(
        0,
        "Model",
        "Number of layers at the start of the backbone that are not trained, or all",
        metavar="N|all",
        least=0,
        choices=("all",),
    )
    augment: str = setting(
        "auto",
        "Data",
        "Random changes to the images, in training only",
        more="light moves and scales them a little; photo also mirrors them and changes brightness "
        "and contrast; auto is light, or none for a model of your own.",
        metavar="KIND",
        choices=AUGMENTATIONS,
    )
    precision: str = setting(
        "float32",
        "Model",
        "Precision of the computation",
        more=f"One of {', '.join(PRECISIONS)}.",
        metavar="NAME",
        choices=PRECISIONS,
    )
    image_size: int | None = setting(
        None,
        "Data",
        "Height and width to read or draw images at, in pixels",
        default="32 for glyphs; 64 for folders, or 160 with a network of keras.applications",
        least=8,
    )
    split_by: str | None = setting(
        None,
        "Data",
        "Column of a table whose values, not the classes, are divided into training, validation "
        "and test",
        more="All examples of one person, product or recording are then in the same part.",
        default="divide the classes, or keep the parts that the data has",
        metavar="COLUMN",
    )
    cache: float = setting(
        0.0,
        "Data",
        "Memory for decoded images, in GiB",
        more="Images that fit are decoded only once.",
        metavar="GIB",
        least=0.0,
    )
    embedding_size: int | None = setting(
        None,
        "Model",
        "Number of dimensions of the embedding",
        default="128 for images; for vectors, as many as the input has",
        least=1,
    )
    chunk: int | None = setting(
        None,
        "Model",
        "Number of examples that go through the network at once in training",
        more="The loss still sees the whole batch. Chunks save memory, but cost one more forward "
        "pass.",
        default="the whole batch",
        least=1,
    )
    classes_per_batch: int | None = setting(
        None,
        "Batches",
        "Number of classes in a batch",
        default="32, or all classes if there are fewer",
        least=2,
    )
    examples_per_class: int | None = setting(
        None,
        "Batches",
        "Number of examples per class in a batch",
        default="4, or more if there are fewer than 32 classes, up to 128 examples in all",
        least=2,
    )
    hard_negatives: bool = setting(
        False,
        "Batches",
        "Put classes that the model confuses into the same batch",
        more="They are found anew before each epoch except the first, from at most 20,000 training "
        "examples. Half of the classes in a batch stay random.",
    )
    steps_per_epoch: int | None = setting(
        None,
        "Optimisation",
        "Number of training steps per epoch",
        default="as many as one pass through the data takes, from 50 to 500",
        least=1,
    )
    epochs: int = setting(
        20,
        "Optimisation",
        "Number of epochs to train",
        more="With --resume it can be raised.",
        least=1,
    )
    patience: int | None = setting(
        None,
        "Optimisation",
        "Stop after this many epochs without a better val_map@r",
        more="With --resume it can be changed.",
        default="train all epochs",
        least=1,
    )
    learning_rate: float | None = setting(
        None,
        "Optimisation",
        "Highest learning rate",
        more="A warm-up over the first tenth of the steps leads to it; a cosine decay follows.",
        default="0.001 with a network of keras.applications, else 0.01; a tenth of that with "
        "--weights",
        metavar="X",
        above=0.0,
        below=math.inf,
    )
    seed: int = setting(
        0,
        "Optimisation",
        "Seed of the weights, the batches and the augmentation",
        least=0,
        below=2**32,
    )
    devices: int = setting(
        1,
        "Run",
        "Number of devices of this machine that share each batch",
        more="Their number changes neither the loss nor the model, because the loss sees the whole "
        "batch; --resume accepts another. Without a GPU, JAX and TensorFlow divide the CPU into "
        "devices. PyTorch runs one process per device, and needs Keras 3.16 or newer.",
        least=1,
    )
    tensorboard: bool = setting(False, "Run", "Also write logs for TensorBoard")

    def check_values(self) -> None:
        """Raise ValueError for a setting of the wrong type or out of its bounds."""
        for one in settings():
            check(getattr(self, one.name), one)


def settings() -> tuple[Field, ...]:
    """The fields, in the order of the command line."""
    return tuple(sorted(fields(Fields), key=lambda one: GROUPS.index(about(one).group)))


def arguments(indent: str = " " * 4) -> Iterator[str]:
    """The lines of the "Args:" of a docstring."""
    for one in fields(Fields):
        text = f"{one.name}: {about(one).help(one.default)}"
        yield from textwrap.wrap(text, 100, initial_indent=indent * 2, subsequent_indent=indent * 3)
