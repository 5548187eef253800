"""`tensorflow_similarity.models.ContrastiveModel`: SimSiam, SimCLR, Barlow Twins and VICReg."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kinfold.compat.tensorflow_similarity.indexer import Indexer
from kinfold.compat.tensorflow_similarity.layers import mean_std
from kinfold.compat.tensorflow_similarity.models.heads import get_predictor, get_projector
from kinfold.compat.tensorflow_similarity.models.indexed import Indexed, index_config
from kinfold.core import checks
from kinfold.core.checks import Tensor
from kinfold.losses.trainable import TrainableLoss

ALGORITHMS = ("simsiam", "simclr", "barlow", "vicreg")


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class ContrastiveModel(Indexed, keras.Model):
    """A model that learns without labels, from two views of each example.

    With the projections z1, z2 of the two views, z = projector(backbone(view)), and for SimSiam the
    predictions p1, p2, p = predictor(z), it minimises

        loss(z1, z2)                          for "simclr", "barlow" and "vicreg",
        loss(sg(z1), p2) + loss(sg(z2), p1)   for "simsiam", sg stopping the gradient,

    and what the parts regularise. `fit`, `evaluate` and `train_on_batch` take the views as
    `fit(view1, view2)`, or from a dataset of (view1, view2); with one view both are the same.
    Beside the loss the logs hold `proj_std`, and for SimSiam `pred_std`: the spread of the
    directions of z1 and p1 over a batch, 0 where the model has collapsed.

    `predict` gives projections of unit norm, which are also what the index holds. To use what was
    learned, take `backbone`.

    Args:
        backbone: a model from examples to features [batch, d].
        projector: a model from features to projections.
        predictor: a model from projections to projections, for SimSiam alone.
        algorithm: "simsiam", "simclr", "barlow" or "vicreg".
        **kwargs: those of `keras.Model`.

    Raises:
        ValueError: an unknown algorithm, SimSiam without a predictor, or another with one.

    References:
        TensorFlow Similarity, models.ContrastiveModel; Chen and He 2020 (SimSiam,
        https://arxiv.org/abs/2011.10566), Chen et al. 2020 (SimCLR), Zbontar et al. 2021 (Barlow
        Twins), Bardes et al. 2021 (VICReg).
    """

    def __init__(
        self,
        backbone: keras.Model,
        projector: keras.Model,
        predictor: keras.Model | None = None,
        algorithm: str = "simsiam",
        **kwargs: Any,
    ) -> None:
        for name in ("inputs", "outputs"):
            if name in kwargs:
                raise ValueError(
                    f"ContrastiveModel is made of its parts and takes no `{name}`: leave it out."
                )
        super().__init__(**kwargs)
        self.algorithm = checks.choice(algorithm, "algorithm", ALGORITHMS)
        if (predictor is not None) != (algorithm == "simsiam"):
            raise ValueError(
                "SimSiam needs a `predictor`, such as `get_predictor` makes, and the other "
                f"algorithms take none. Received: algorithm={algorithm!r}, predictor={predictor!r}."
            )
        self.backbone, self.projector, self.predictor = backbone, projector, predictor
        self._of_parts = [
            keras.metrics.Mean(name=name)
            for name in ("proj_std", *(["pred_std"] if predictor is not None else []))
        ]
        self._of_loss: list[keras.metrics.Mean] = []
        if all(part.built for part in self._parts()):
            self.built = True

    def _parts(self) -> list[keras.Model]:
        return [one for one in (self.backbone, self.projector, self.predictor) if one is not None]

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        loss_weights: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        distance: Any = "cosine",
        kv_store: Any = "memory",
        search: Any = "nmslib",
        evaluator: Any = "memory",
        stat_buffer_size: int = 1000,
        **kwargs: Any,
    ) -> None:
        """Configure the training, and make an empty index.

        Args:
            optimizer, run_eagerly, steps_per_execution, **kwargs: see `keras.Model.compile`.
            loss: a loss of two views, such as `losses.SimSiamLoss`.
            metrics, loss_weights, weighted_metrics: None.
            distance, kv_store, search, evaluator, stat_buffer_size: see `Indexer`.

        Raises:
            ValueError: no loss, or what a contrastive model cannot use.
        """
        unused = {
            "metrics": metrics,
            "loss_weights": loss_weights,
            "weighted_metrics": weighted_metrics,
        }
        for name, value in unused.items():
            if value is not None:
                raise ValueError(
                    f"A contrastive model has no labels to use `{name}` with: leave it out, and "
                    "measure by `evaluate_retrieval` or a callback."
                )
        if loss is None:
            raise ValueError(
                "A contrastive model needs a loss of two views: pass loss=SimSiamLoss(), "
                "SimCLRLoss(), Barlow() or VicReg()."
            )
        self._loss_of_views = keras.losses.get(loss)
        if isinstance(loss, TrainableLoss) and loss.trainable_variables:
            raise ValueError(f"A contrastive model takes no loss with weights. Received: {loss!r}.")
        self._of_loss = [
            keras.metrics.Mean(name=name)
            for name in ("contrastive_loss", "regularization_loss")
            if self.losses
        ]
        self._of_index = index_config(distance, search, kv_store, evaluator, stat_buffer_size)
        super().compile(
            optimizer=optimizer,
            loss=loss,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            **kwargs,
        )
        self.create_index(distance, search, kv_store, evaluator, stat_buffer_size)

    def get_compile_config(self) -> dict[str, Any]:
        """Return the arguments of `compile`; parts of the index that have no name are left out."""
        config = super().get_compile_config()
        return {**config, **self._of_index} if config else config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def create_index(
        self,
        distance: Any = "cosine",
        search: Any = "nmslib",
        kv_store: Any = "memory",
        evaluator: Any = "memory",
        stat_buffer_size: int = 1000,
    ) -> None:
        """Make an empty index in place of any that is there; see `Indexer`."""
        size = self.projector.output_shape[-1]
        self._indexer = Indexer(size, distance, search, kv_store, evaluator, None, stat_buffer_size)

    def call(self, inputs: Tensor, training: bool | None = None) -> tuple[Tensor, ...]:
        """Return the projection of one view, and for SimSiam the prediction."""
        z = self.projector(self.backbone(inputs, training=training), training=training)
        return (z,) if self.predictor is None else (z, self.predictor(z, training=training))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The loss of two views: `x`, of which `y_pred` is the output, and `y`."""
        if sample_weight is not None:
            raise ValueError("A contrastive model takes no `sample_weight`: leave it out.")
        if y is not None and tuple(y.shape) != tuple(x.shape):
            raise ValueError(
                "The two views must have the same shape: pass fit(view1, view2), without labels. "
                f"Received shapes {tuple(x.shape)} and {tuple(y.shape)}."
            )
        first, second = y_pred, y_pred if y is None else self(y, training=training)
        if self.predictor is None:
            loss = self._compare(first[0], second[0])
        else:
            (z1, p1), (z2, p2) = first, second
            loss = self._compare(ops.stop_gradient(z1), p2)
            loss = loss + self._compare(ops.stop_gradient(z2), p1)
        for metric, output in zip(self._of_parts, first, strict=True):
            metric.update_state(ops.stop_gradient(mean_std(output)))
        regular = sum((ops.cast(one, loss.dtype) for one in self.losses), ops.zeros_like(loss))
        for metric, value in zip(self._of_loss, (loss, regular), strict=False):
            metric.update_state(ops.stop_gradient(value))
        return loss + regular

    def _compare(self, one: Tensor, other: Tensor) -> Tensor:
        return ops.mean(self._loss_of_views(one, other))  # VicReg gives a loss of each example

    def predict(self, x: Any, batch_size: int | None = None, **kwargs: Any) -> np.ndarray:
        """Return the projections of examples, at unit norm [n, d]; see `keras.Model.predict`."""
        rows = super().predict(x, batch_size=batch_size, **kwargs)[0]
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(norms > 0, norms, 1)

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Print a summary of each part."""
        for part in self._parts():
            part.summary(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        parts = {
            name: part and keras.saving.serialize_keras_object(part)
            for name, part in (
                ("backbone", self.backbone),
                ("projector", self.projector),
                ("predictor", self.predictor),
            )
        }
        return {**parts, "algorithm": self.algorithm, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> ContrastiveModel:
        made = {
            name: config[name]
            and keras.saving.deserialize_keras_object(config[name], custom_objects=custom_objects)
            for name in ("backbone", "projector", "predictor")
        }
        return cls(**{**config, **made})


def create_contrastive_model(
    *,
    backbone: keras.Model,
    projector: keras.Model | None = None,
    predictor: keras.Model | None = None,
    algorithm: str = "simsiam",
    **kwargs: Any,
) -> ContrastiveModel:
    """Build a `ContrastiveModel` with the heads that it needs.

    Args:
        backbone: a model of `keras.Input` from examples to features [batch, d].
        projector: None for two layers of 512; see `heads.get_projector`.
        predictor: None for what the algorithm needs; see `heads.get_predictor`.
        algorithm: "simsiam", "simclr", "barlow" or "vicreg".
        **kwargs: those of `keras.Model`.

    Raises:
        ValueError: a backbone whose output is not of shape [batch, d], and as `ContrastiveModel`.

    Example:

    >>> import keras
    >>> from kinfold.compat.tensorflow_similarity import losses, models
    >>> backbone = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> model = models.create_contrastive_model(backbone=backbone, algorithm="simclr")
    >>> model.compile("adam", losses.SimCLRLoss())
    >>> model.projector.output_shape
    (None, 512)
    """
    shape = getattr(backbone, "output_shape", None) if backbone.built else None
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[1] is None:
        raise ValueError(
            "`backbone` must give features [batch, d] of a known size: build it of keras.Input, "
            f"and end it in a pooling layer. Received an output of shape {shape}."
        )
    if projector is None:
        projector = get_projector(shape[1], num_layers=2)
    if predictor is None and algorithm == "simsiam":
        predictor = get_predictor(projector.output_shape[-1])
    return ContrastiveModel(backbone, projector, predictor, algorithm, **kwargs)
