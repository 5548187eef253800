"""The settings of a training run, and the parts that they make."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kinfold import augmentation, encoders, losses, pretrained
from kinfold.batches import ClassBalancedBatches
from kinfold.datasets import Split
from kinfold.scaling import Scaling, value_range

SMALL_IMAGE = 64  # pixels a side, up to which images get the small network by default
APPLICATION_SIZE = 160  # pixels a side that images are read at for a keras.applications network
EMBEDDING_SIZE = 128  # of images
CLASSES_PER_BATCH = 32
# Trained with it, more unseen glyphs are found than with the loss's default of 0.4.
CIRCLE_MARGIN = 0.25
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


@dataclass(frozen=True)
class Settings:
    """What a run is made of; None stands for a default that suits the loss or the data.

    Args:
        data: "glyphs", a folder with a folder of images a class, or an .npz or .parquet file.
        loss: "circle" or "contrastive" (all pairs of a batch).
        margin: of the loss; None is 0.25 for circle and 1.0 for contrastive.
        gamma: scale of the logits of the circle loss; None is 80.
        backbone: "small", or a name in `keras.applications`; None is "small" for images up to
            64 x 64. Vectors have none.
        weights: that the backbone begins with: "none" for random ones; "imagenet", which Keras
            downloads for a network of `keras.applications`; or a file, see
            `kinfold.pretrained.load_weights`.
        freeze: how many of the first layers of the backbone are not trained, or "all".
        augment: random changes to the images of a batch: "none", "light" or "photo", see
            `kinfold.augmentation.make_layers`.
        precision: "float32", "mixed_float16" (with loss scaling) or "mixed_bfloat16". Embeddings
            are float32.
        image_size: height and width that images are read or drawn at, in pixels.
        embedding_size: dimensions of the embedding; None is 128, and for vectors their own number.
        classes_per_batch: None is 32, or all classes where there are fewer.
        examples_per_class: in a batch.
        steps_per_epoch: batches an epoch.
        epochs: how many to train.
        patience: epochs without a better val_map@r after which training ends; None trains all.
        learning_rate: the highest, after a warm-up over the first tenth and before a cosine decay;
            None is 0.001 for a network of `keras.applications` and 0.01 for others, and a tenth of
            that where the weights are not random.
        tensorboard: also write logs for TensorBoard.
        seed: of the weights and the batches, 0 to 2^32 - 1.

    Example:

    >>> from kinfold.settings import Settings
    >>> Settings("glyphs", gamma=40.0).make_loss().gamma
    40.0
    """

    data: str
    loss: str = "circle"
    margin: float | None = None
    gamma: float | None = None
    backbone: str | None = None
    weights: str = "none"
    freeze: int | str = 0
    augment: str = "none"
    precision: str = "float32"
    image_size: int | None = None
    embedding_size: int | None = None
    classes_per_batch: int | None = None
    examples_per_class: int = 4
    steps_per_epoch: int = 50
    epochs: int = 20
    patience: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    tensorboard: bool = False

    def check(self) -> None:
        """Raise ValueError for settings that no data can make right."""
        self.make_loss()
        if self.image_size is not None:
            self._check_backbone(self.image_size, self.image_size)
        if self.backbone is not None and self._is_application():
            encoders.check_application(self.backbone)
        if self.weights == "imagenet" and not self._is_application():
            raise ValueError(
                "The weights of ImageNet are for networks of keras.applications: name one as "
                f"backbone. Received: backbone={self.backbone!r}."
            )
        if self.freeze != "all" and (not isinstance(self.freeze, int) or self.freeze < 0):
            raise ValueError(
                "`freeze` must be a number of layers, 0 or more, or 'all'. "
                f"Received: freeze={self.freeze!r}."
            )
        augmentation.make_layers(self.augment, self.seed)
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"`precision` must be one of {', '.join(PRECISIONS)}. Received: {self.precision!r}."
            )
        for name, least in (
            ("image_size", 8),
            ("embedding_size", 1),
            ("classes_per_batch", 2),
            ("examples_per_class", 2),
            ("steps_per_epoch", 1),
            ("epochs", 1),
            ("patience", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value}.")
        if self.seed >= 2**32:
            raise ValueError(f"`seed` must be below 2^32. Received: seed={self.seed}.")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ValueError(
                "`learning_rate` must be a number above 0. "
                f"Received: learning_rate={self.learning_rate}."
            )

    def make_loss(self) -> losses.PairLoss:
        """Build the loss."""
        if self.loss == "circle":
            margin = CIRCLE_MARGIN if self.margin is None else self.margin
            return losses.CircleLoss(**_given(gamma=self.gamma), margin=margin)
        if self.loss != "contrastive":
            raise ValueError(
                f"Unknown loss. Expected circle or contrastive. Received: {self.loss!r}."
            )
        if self.gamma is not None:
            raise ValueError(
                "The contrastive loss has no gamma: leave it out, or choose the circle loss. "
                f"Received: gamma={self.gamma}."
            )
        return losses.PairContrastiveLoss(**_given(negative_margin=self.margin))

    @property
    def weights_file(self) -> str | None:
        """The file of weights that the backbone begins with, if it is a file."""
        return None if self.weights in ("none", "imagenet") else self.weights

    def make_encoder(self, shape: tuple[int, ...], scaling: Scaling | None = None) -> keras.Model:
        """Build the encoder for examples of `shape`, as training begins with it.

        `scaling` says what values images have; None is 0 to 255. Weights that are not of a file
        or a download are drawn from the seed.
        """
        keras.utils.set_random_seed(self.seed)
        encoder = self._build_encoder(shape, scaling)
        if self.weights_file is not None:
            pretrained.load_weights(encoder, self.weights_file)
        pretrained.freeze(encoder, self.freeze)
        return encoder

    def _build_encoder(self, shape: tuple[int, ...], scaling: Scaling | None) -> keras.Model:
        if len(shape) == 1:
            if self.backbone is not None:
                raise ValueError(
                    "The data holds vectors, which take no backbone. "
                    f"Received: backbone={self.backbone!r}."
                )
            if self.augment != "none":
                raise ValueError(
                    "The data holds vectors, and augmentation is for images. "
                    f"Received: augment={self.augment!r}."
                )
            with self._policy():
                return encoders.vector_head(shape[0], self.embedding_size or shape[0])
        height, width, channels = shape
        size = self.embedding_size or EMBEDDING_SIZE
        self._check_backbone(height, width)
        with self._policy():
            if self.backbone in (None, "small"):
                return encoders.small_convnet((height, width, channels), size, scaling)
            return encoders.application(
                self.backbone,
                (height, width, channels),
                size,
                weights="imagenet" if self.weights == "imagenet" else None,
                scaling=scaling,
            )

    def make_trainer(self, encoder: keras.Model) -> keras.Model:
        """Build the compiled model that trains an encoder: its layers, behind the augmentation.

        The encoder stays uncompiled, and its file without optimizer and augmentation.
        """
        inputs, outputs = encoder.input, encoder.output
        changes = augmentation.make_layers(self.augment, self.seed, value_range(encoder))
        with self._policy():  # by which `compile` adds the loss scaling
            if changes:
                inputs = images = keras.Input(encoder.input_shape[1:], name="images")
                for change in changes:
                    images = change(images)
                outputs = encoder(images)
            trainer = keras.Model(inputs, outputs)
        trainer.compile(self.make_optimizer(), self.make_loss())
        trainer.optimizer.build(trainer.trainable_variables)
        return trainer

    @contextlib.contextmanager
    def _policy(self) -> Iterator[None]:
        """Make layers of this precision, and leave Keras as it was."""
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.precision)
        try:
            yield
        finally:
            keras.config.set_dtype_policy(before)

    def make_batches(self, train: Split) -> ClassBalancedBatches:
        """Build the batches of an epoch, which follow from the seed and the epoch alone."""
        usable = int((np.bincount(train.y) > 1).sum())
        classes = self.classes_per_batch or min(CLASSES_PER_BATCH, max(usable, 2))
        return ClassBalancedBatches(
            train.x,
            train.y,
            classes_per_batch=classes,
            examples_per_class=self.examples_per_class,
            batches_per_epoch=self.steps_per_epoch,
            seed=self.seed,
        )

    def make_optimizer(self) -> keras.optimizers.Optimizer:
        """Build Adam, whose learning rate follows from the step alone, so that a run can go on."""
        steps = self.epochs * self.steps_per_epoch
        warm_up = steps // 10
        usual = 1e-3 if self._is_application() else 1e-2
        highest = self.learning_rate or (usual if self.weights == "none" else usual / 10)
        rate = keras.optimizers.schedules.CosineDecay(
            highest / 100 if warm_up else highest,
            decay_steps=steps - warm_up,
            alpha=0.01,
            warmup_target=highest if warm_up else None,
            warmup_steps=warm_up,
        )
        return keras.optimizers.Adam(rate)

    def is_done(self, epochs: int, best_epoch: int) -> bool:
        """Whether training ends after so many epochs: all of them, or none better for long."""
        waited = self.patience is not None and epochs - best_epoch >= self.patience
        return epochs >= self.epochs or waited

    def read_size(self) -> int | None:
        """Height and width to read images of a folder at; None for the default of the data."""
        if self.image_size is None and self._is_application() and not self.data.endswith(".npz"):
            return APPLICATION_SIZE
        return self.image_size

    def _check_backbone(self, height: int, width: int) -> None:
        if self.backbone is None and max(height, width) > SMALL_IMAGE:
            raise ValueError(
                f"Images of {height} x {width} need a backbone: 'small', a light network, or a "
                "name in keras.applications, such as 'MobileNetV2'."
            )

    def _is_application(self) -> bool:
        return self.backbone not in (None, "small")


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
