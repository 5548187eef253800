"""EmbeddingModel: a Keras model that trains what its losses bring along."""

from typing import Any

import keras

from kinfold.losses.trainable import TrainableLoss


@keras.saving.register_keras_serializable("kinfold")
class EmbeddingModel(keras.Model):
    """A `keras.Model` that also trains, saves and loads the variables of its losses.

    Built as any model: `EmbeddingModel(inputs, outputs)`, or a subclass with a `call`. With losses
    that have no variables it is the same as `keras.Model`.

    Example:

    >>> import keras, kinfold, numpy as np
    >>> inputs = keras.Input((4,))
    >>> model = kinfold.EmbeddingModel(inputs, keras.layers.Dense(2)(inputs))
    >>> model.compile("adam", kinfold.losses.ArcFaceLoss(num_classes=3, embedding_size=2))
    >>> [v.path for v in model.trainable_variables][-1]
    'arc_face_loss_variables/prototypes'
    >>> x, y = np.ones((6, 4), "float32"), np.array([0, 0, 1, 1, 2, 2])
    >>> _ = model.fit(x, y, verbose=0)
    """

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, **kwargs: Any) -> None:
        """Compile as `keras.Model` does, and take up the variables of the losses."""
        if not hasattr(self, "loss_layers"):
            self.loss_layers: list[keras.layers.Layer] = []
        self.loss_layers.clear()
        for one in keras.tree.flatten(loss):
            if isinstance(one, TrainableLoss) and one.trainable_variables:
                self.loss_layers.append(one.layer)
        super().compile(optimizer, loss, **kwargs)

    def get_compile_config(self) -> dict[str, Any]:
        return super().get_compile_config()

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)
