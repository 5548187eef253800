"""The settings of a training run, and the parts that they make."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from _kinfold_settings import Fields, arguments
from kinfold import losses
from kinfold.batches import ClassBalancedBatches, ClassBalancedIndices
from kinfold.core import backends
from kinfold.core.readers import Cached
from kinfold.datasets import Split, Stored
from kinfold.encoders import augmentation, networks, pretrained
from kinfold.encoders.scaling import Scaling, value_range
from kinfold.layers import Chunked
from kinfold.model import EmbeddingModel
from kinfold.training import run_losses
from kinfold.training.devices import Devices

SMALL_IMAGE = 64  # pixels per side, up to which images get the small network by default
APPLICATION_SIZE = 160  # pixels per side that images are read at for a keras.applications network
EMBEDDING_SIZE = 128  # of images
# Where neither the user nor the data says: see `recipe`.
CLASSES_PER_BATCH, EXAMPLES_PER_CLASS, STEPS_PER_EPOCH = 32, 4, 50
_READ_AHEAD = 4  # batches


@dataclass(frozen=True)
class Settings(Fields):
    """The settings of a run; None stands for a default that suits the loss or the data.

    A run fills in what the data decides, by `recipe.chosen`, and keeps that.

    Example:

    >>> from kinfold.training.settings import Settings
    >>> Settings("glyphs", gamma=40.0).make_loss().gamma
    40.0
    >>> options = {"margin": 0.1, "negatives": "hard"}
    >>> Settings("glyphs", loss="triplet", loss_options=options).make_loss().negatives
    'hard'
    """

    def check(self, own_model: bool = False) -> None:
        """Raise ValueError for settings that are wrong whatever the data.

        `own_model` says that the network is not made of these settings.
        """
        self.check_values()
        loss = self.make_loss()
        if self.memory_size:
            run_losses.check_memory(self.loss, loss)
        elif self.memory_warmup:
            raise ValueError(
                "There is no memory to warm up: give a memory_size (--memory-size), or leave out "
                f"the warm-up. Received: memory_warmup={self.memory_warmup}."
            )
        if self.image_size is not None and not own_model:
            self._check_backbone(self.image_size, self.image_size)
        if self.backbone is not None and self._is_application():
            networks.check_application(self.backbone)
        if self.weights == "imagenet" and not self._is_application():
            raise ValueError(
                "The weights of ImageNet are for networks of keras.applications: name one as "
                f"backbone. Received: backbone={self.backbone!r}."
            )

    def make_loss(self, num_classes: int = 2, embedding_size: int = 1) -> keras.losses.Loss:
        """Build the loss.

        Args:
            num_classes: number of classes to train on; a loss with prototypes needs it.
            embedding_size: dimensions of the embedding; a loss with prototypes needs it.

        Raises:
            ValueError: an unknown loss, or options that it does not have.
        """
        return run_losses.make(
            self.loss,
            run_losses.with_shorthands(
                self.loss, self.loss_options or {}, {"margin": self.margin, "gamma": self.gamma}
            ),
            num_classes,
            embedding_size,
            self.examples_per_class or EXAMPLES_PER_CLASS,
        )

    @property
    def weights_file(self) -> str | None:
        """The file of weights that the backbone begins with, if it is a file."""
        return None if self.weights in ("none", "imagenet") else self.weights

    def make_encoder(self, shape: tuple[int, ...], scaling: Scaling | None = None) -> keras.Model:
        """Build the encoder for examples of `shape`, as training begins with it.

        `scaling` says what values images have; None is 0 to 255. Weights that are not of a file
        or a download are drawn from the seed.
        """
        backends.set_random_seed(self.seed)
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
            if self.augment not in ("auto", "none"):
                raise ValueError(
                    "The data holds vectors, and augmentation is for images. "
                    f"Received: augment={self.augment!r}."
                )
            with self._policy():
                return networks.vector_head(shape[0], self.embedding_size or shape[0])
        height, width, channels = shape
        size = self.embedding_size or EMBEDDING_SIZE
        self._check_backbone(height, width)
        with self._policy():
            if self.backbone in (None, "small"):
                return networks.small_convnet((height, width, channels), size, scaling)
            return networks.application(
                self.backbone,
                (height, width, channels),
                size,
                weights="imagenet" if self.weights == "imagenet" else None,
                scaling=scaling,
            )

    def make_trainer(
        self, encoder: keras.Model, num_classes: int, shape: tuple[int, ...] | None = None
    ) -> EmbeddingModel:
        """Build the compiled model that trains an encoder: its layers, behind the augmentation.

        The encoder stays uncompiled and without chunks, and its file without optimizer,
        augmentation, prototypes and memory.

        Args:
            encoder: as `make_encoder` gives it.
            num_classes: number of classes to train on, of which a loss with prototypes has some.
            shape: of an example; None where the encoder tells.
        """
        inputs, outputs = _ends(encoder)
        changes = augmentation.make_layers(self._augment, self.seed, value_range(encoder))
        with self._policy():  # by which `compile` adds the loss scaling
            if changes or self.chunk or outputs is None:
                inputs = images = keras.Input(shape or encoder.input_shape[1:], name="images")
                for change in changes:
                    images = change(images)
                outputs = (Chunked(encoder, self.chunk) if self.chunk else encoder)(images)
            trainer = EmbeddingModel(inputs, outputs)
        # A seed other than the encoder's, from which prototypes would get the same numbers as its
        # weights; set here, as what was loaded since may have drawn from the encoder's.
        backends.set_random_seed((self.seed + 1) % 2**32)
        loss = self.make_loss(num_classes, outputs.shape[-1])
        trainer.compile(
            self.make_optimizer(),
            loss,
            memory_size=self.memory_size,
            memory_warmup=self.memory_warmup,
        )
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

    def classes(self, train: Split) -> int:
        """Number of classes in a batch; without a setting, up to 32 that have two examples."""
        usable = int((np.bincount(train.y) > 1).sum())
        return self.classes_per_batch or min(CLASSES_PER_BATCH, max(usable, 2))

    def make_batches(self, train: Split) -> ClassBalancedBatches:
        """Build the batches of an epoch, which follow from the seed and the epoch alone."""
        x, stored = train.x, isinstance(train.x, Stored)
        if self.cache and isinstance(x, Stored):
            x = Stored(Cached(x.reader, int(self.cache * 2**30)), x.rows)
        return ClassBalancedBatches(
            x,
            train.y,
            classes_per_batch=self.classes(train),
            examples_per_class=self.examples_per_class or EXAMPLES_PER_CLASS,
            batches_per_epoch=self.steps,
            seed=self.seed,
            workers=2 if stored else 1,  # the next batches are read while one is trained on
            max_queue_size=_READ_AHEAD,
        )

    def check_shares(self, batches: ClassBalancedIndices, devices: Devices) -> None:
        """Raise ValueError if devices cannot share a batch evenly, or the loss cannot be shared."""
        if devices.count == 1:
            return
        classes, examples = batches.classes_per_batch, batches.examples_per_class
        loss = self.make_loss()
        by_class = isinstance(loss, run_losses.TwoByTwo) and not devices.global_arrays
        if by_class and isinstance(loss.loss, losses.ContrastiveLoss):
            raise ValueError(
                f"The loss {self.loss} pairs each class with the next one of the batch, which may "
                f"lie on another device: use --devices 1, JAX, or another loss, such as "
                f"pair-contrastive. Received: devices={devices.count}."
            )
        shared = classes if by_class else classes * examples
        if shared % devices.count:
            what = f"{classes} classes" if by_class else f"{classes} x {examples} examples"
            raise ValueError(
                f"A batch of {what} cannot be shared evenly by {devices.count} devices: change "
                "--classes-per-batch or --examples-per-class, or pass another --devices. "
                f"Received: classes_per_batch={classes}, examples_per_class={examples}, "
                f"devices={devices.count}."
            )

    @property
    def _augment(self) -> str:
        return "none" if self.augment == "auto" else self.augment

    @property
    def steps(self) -> int:
        """How many steps an epoch has."""
        return self.steps_per_epoch or STEPS_PER_EPOCH

    @property
    def highest_rate(self) -> float:
        """The highest learning rate."""
        usual = 1e-3 if self._is_application() else 1e-2
        return self.learning_rate or (usual if self.weights == "none" else usual / 10)

    def make_optimizer(self) -> keras.optimizers.Optimizer:
        """Build Adam, whose learning rate follows from the step alone, so that a run can go on."""
        steps, highest = self.epochs * self.steps, self.highest_rate
        warm_up = steps // 10
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


def _ends(encoder: keras.Model) -> tuple[Any, Any]:
    """The symbolic input and output of a model; (None, None) of one that is code alone."""
    inputs, outputs = getattr(encoder, "inputs", None), getattr(encoder, "outputs", None)
    return (inputs[0], outputs[0]) if inputs and outputs else (None, None)


assert Settings.__doc__  # python -OO has none
Settings.__doc__ += "\n\n    Args:\n" + "\n".join(arguments()) + "\n"
