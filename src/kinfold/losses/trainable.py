"""Losses with variables of their own, such as prototypes or a temperature."""

import warnings
from collections.abc import Iterable
from typing import Any

import keras

from kinfold.core.checks import Tensor


class TrainableLoss(keras.losses.Loss):
    """A loss whose `trainable_variables` are trained with the model.

    `kinfold.EmbeddingModel.compile` registers them: `fit` trains them, and the model's file
    holds them. In your own loop with PyTorch, give the optimizer
    `[v.value for v in loss.trainable_variables]`; with JAX, differentiate `stateless_call`.
    """

    def __init__(self, name: str | None, reduction: str | None, dtype: Any) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self._layer = keras.layers.Layer(name=f"{self.name}_variables", dtype=self._stored_in())
        self._layer.built = True
        self._asked_for = False

    def _stored_in(self) -> str:
        return "float64" if self.dtype == "float64" else "float32"

    def _add_variable(self, name: str, shape: tuple[int, ...], initializer: Any) -> keras.Variable:
        return self._layer.add_weight(
            shape=shape, initializer=initializer, name=name, autocast=False
        )

    @property
    def layer(self) -> keras.layers.Layer:
        """The layer that holds the variables, for a model to keep."""
        self._asked_for = True
        return self._layer

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """What the optimizer is to train besides the model."""
        return self.layer.trainable_variables

    def stateless_call(
        self, trainable_variables: Iterable[Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Call the loss with other values of its variables, as JAX differentiates it.

        Args:
            trainable_variables: values in the order of `trainable_variables`.
            args: of the call, `y_true` first.
            kwargs: of the call.
        """
        mapping = zip(self.trainable_variables, trainable_variables, strict=True)
        with keras.StatelessScope(state_mapping=list(mapping)):
            return self(*args, **kwargs)

    def _warn_if_untrained(self) -> None:
        if self._asked_for or not self._layer.trainable_variables:
            return
        self._asked_for = True
        warnings.warn(
            f"Nothing trains the variables of {type(self).__name__}: compile it in a "
            "kinfold.EmbeddingModel instead of a keras.Model, or give `loss.trainable_variables` "
            "to your optimizer.",
            stacklevel=4,
        )


def current(variable: keras.Variable) -> Tensor:
    """Value of a variable as a tensor of the backend, whose gradient reaches the variable."""
    value = variable.value
    return value.read_value() if hasattr(value, "read_value") else value  # of TensorFlow
