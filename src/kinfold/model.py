"""EmbeddingModel: a Keras model that trains what its losses bring along."""

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

import keras

from kinfold import distributed
from kinfold.core import batch_labels
from kinfold.losses.trainable import TrainableLoss
from kinfold.memory import CrossBatchMemory
from kinfold.remembering import Remembering, embedding_size, the_one


@keras.saving.register_keras_serializable("kinfold")
class EmbeddingModel(keras.Model):
    """A `keras.Model` that also trains, saves and loads the variables of its losses.

    Built as any model: `EmbeddingModel(inputs, outputs)`, or a subclass with a `call`. With losses
    that have no variables it trains as `keras.Model` does.

    JAX without x64 keeps 32 bits of an integer, and Keras cuts class ids to them in silence before
    a loss sees them. This model looks at the labels first, in `fit`, `evaluate`, `train_on_batch`
    and `test_on_batch`, and raises a ValueError where different ids would become one. A
    `keras.Model` cannot: map its ids with `np.unique(ids, return_inverse=True)[1]`.

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

    _remembering: Remembering | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # A subclass with an `__init__` of its own has other arguments.
        plain = cls.__init__ is EmbeddingModel.__init__
        of_inputs = plain and (len(args) > 1 or "outputs" in kwargs)
        return super().__new__(_of_inputs(cls) if of_inputs else cls)  # type: ignore[arg-type]

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        *args: Any,
        memory_size: int = 0,
        memory_warmup: int = 0,
        **kwargs: Any,
    ) -> None:
        """Compile as `keras.Model` does; take up the variables of the losses, make a memory.

        Args:
            optimizer: see `keras.Model.compile`, as for all further arguments.
            loss: one loss or several.
            memory_size: number of earlier examples that each batch is compared with in training;
                see `kinfold.CrossBatchMemory`. It lies in the model's file and its weights.
            memory_warmup: number of first steps, which only fill the memory.

        Raises:
            ValueError: a memory with several losses, or for a model whose output is not [batch, d].
            TypeError: a memory with a loss that is not over pairs.
        """
        self._remembering = None
        if memory_size:
            self._remembering = Remembering(the_one(loss), memory_size, memory_warmup)
        self._take_up(loss)
        if self._remembering and (size := self._embedding_size()):
            self._make_memory(size)
        super().compile(optimizer, self._remembering or loss, *args, **kwargs)

    # Not a property: Keras would find the layer twice and load it twice.
    def cross_batch_memory(self) -> CrossBatchMemory | None:
        """Return the memory of earlier batches, where the model is compiled with one."""
        return next(
            (one for one in getattr(self, "loss_layers", ()) if isinstance(one, CrossBatchMemory)),
            None,
        )

    @functools.wraps(keras.Model.fit)
    def fit(self, *args: Any, **kwargs: Any) -> Any:
        # Labels in arrays are refused before the first step, not when their batch comes.
        given = inspect.signature(keras.Model.fit).bind(self, *args, **kwargs).arguments
        batch_labels.check(given.get("y"))
        distributed.check_fit(self)
        if isinstance(held_out := given.get("validation_data"), tuple):
            batch_labels.check(held_out[1:2])
        with batch_labels.weights_kept(self):
            return super().fit(*args, **kwargs)

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        with batch_labels.weights_kept(self):
            return super().evaluate(*args, **kwargs)

    @functools.wraps(keras.Model.train_on_batch)
    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        batch_labels.check(y)
        return super().train_on_batch(x, y, *args, **kwargs)

    @functools.wraps(keras.Model.test_on_batch)
    def test_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        batch_labels.check(y)
        return super().test_on_batch(x, y, *args, **kwargs)

    # On JAX, `fit` and `evaluate` call one of these before they read the first batch: the second
    # from Keras 3.16 on, where the first is called by it alone, and not for a model that is built.

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        batch_labels.watch(iterator)
        super()._symbolic_build(iterator=iterator, data_batch=data_batch)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        batch_labels.watch(iterator)
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """As of `keras.Model`; the memory takes part in training, not in evaluation."""
        if self._remembering is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        if self._remembering.compare is None:
            self._make_memory(embedding_size(tuple(y_pred.shape)))
        with self._remembering.while_training(training):
            return super().compute_loss(x, y, y_pred, sample_weight, training)

    def _take_up(self, loss: Any) -> None:
        """Make the variables of the losses the model's own, in place of any before."""
        with self._unlocked():
            if not hasattr(self, "loss_layers"):
                self.loss_layers: list[keras.layers.Layer] = []
            self.loss_layers.clear()
            for one in keras.tree.flatten(loss):
                if isinstance(one, TrainableLoss) and one.trainable_variables:
                    distributed.check_variables(one)
                    self.loss_layers.append(one.layer)
        if self.built and keras.backend.backend() == "torch":
            # `parameters()` of a built model has what it had, and DistributedDataParallel reads it.
            self._track_variables()
        distributed.keep_apart(self, loss)

    def _make_memory(self, size: int) -> None:
        assert self._remembering is not None
        with self._unlocked():
            self.loss_layers.append(self._remembering.make(size))

    def _embedding_size(self) -> int | None:
        """The size of an embedding; None where it is not known before the model is called."""
        try:
            shape = self.output_shape
        except AttributeError:  # no model of keras.Input
            args, kwargs = _inputs_built_for(self.get_build_config() or {})
            if not args and not kwargs:
                return None
            try:
                output = self.compute_output_spec(*args, **kwargs)
            except Exception:  # its call needs more than shapes
                return None
            shape = getattr(output, "shape", type(output).__name__)
        return embedding_size(shape)

    def load_own_variables(self, store: Any) -> None:
        # Keras loads the layers of a model next. A memory that is not there yet would be skipped.
        if self.built and self._remembering and self._remembering.compare is None:
            size = self._embedding_size()
            if size is None:
                raise ValueError(
                    "The model was compiled with `memory_size`, and the size of its embeddings is "
                    "not known before its first step, so no memory can be loaded. Train one step "
                    "and then load, or load before `compile` to begin with an empty memory."
                )
            self._make_memory(size)
        if memory := self.cross_batch_memory():
            memory.refusal = None
        super().load_own_variables(store)

    def __reduce__(self) -> Any:
        rebuild, arguments = super().__reduce__()
        if hasattr(type(self), "_made_from"):
            # This class is made at run time, so pickle cannot find it by its name.
            rebuild = type(self)._made_from._unpickle_model
        return rebuild, arguments

    @contextlib.contextmanager
    def _unlocked(self) -> Iterator[None]:
        """Let a model that is built take up layers: Keras refuses those of its own `call`."""
        locked = self._tracker.locked
        self._tracker.unlock()
        try:
            yield
        finally:
            if locked:
                self._lock_state()

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()
        if config and self._remembering:
            config = {**config, **self._remembering.compiled_with()}
        return config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)


@functools.cache
def _of_inputs(kind: type) -> type:
    """The class of `kind(inputs, outputs)`, made as Keras makes one for `keras.Model`.

    Left to itself, Keras turns the class that it is called on into such a one, and its subclasses
    with it, which then cannot be models of a `call`.
    """
    if hasattr(kind, "_made_from"):
        return kind
    inputs = keras.Input((1,))
    bases = (kind, type(keras.Model(inputs, inputs)))
    told = {"__module__": kind.__module__, "__doc__": kind.__doc__, "_made_from": kind}
    made = type(kind.__name__, bases, told)
    package, _, name = keras.saving.get_registered_name(kind).rpartition(">")
    return keras.saving.register_keras_serializable(package, name)(made) if package else made


def _inputs_built_for(config: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Symbolic arguments of `call`, of the shapes that a model's build config holds."""
    if "input_shape" in config:
        return [_symbolic(config["input_shape"])], {}
    shapes = config.get("shapes_dict", {})
    return [], {name.removesuffix("_shape"): _symbolic(shape) for name, shape in shapes.items()}


def _symbolic(shape: Any) -> Any:
    # Keras keeps nested shapes in containers of its own, which JAX does not take for arguments.
    if isinstance(shape, dict):
        return {name: _symbolic(part) for name, part in shape.items()}
    if all(size is None or isinstance(size, int) for size in shape):
        return keras.KerasTensor(tuple(shape))
    return [_symbolic(part) for part in shape]
