"""Retrieval quality as a metric of `fit`."""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np

from kinfold import distances
from kinfold.core import batch_labels, checks
from kinfold.distributed import processes
from kinfold.metrics import collapse
from kinfold.metrics.retrieval import measure
from kinfold.metrics.task import AVERAGES, Task


class RetrievalEvaluation(keras.callbacks.Callback):
    """Measure retrieval at the end of every epoch and write it into the logs of `fit`.

    The model embeds `x` (and `gallery_x`) with `predict`, and each metric of
    `kinfold.metrics.retrieval_metrics` goes into the logs as `prefix` + its name, for example
    "val_recall@1". The history and the progress bar show it, and the callbacks listed after this
    one can monitor it; give them `mode="max"`, which Keras cannot guess from such names.

    Where several processes train, of `torch.distributed` or of JAX, each embeds its share of the
    examples, and rank 0 measures for all. They use the weights of rank 0. Every rank gets the same
    numbers, so that callbacks which monitor them decide alike. Each rank needs all of `x` and `y`,
    and the callback.

    Once in its life it warns of embeddings of `x` that have collapsed, see
    `kinfold.metrics.collapse`, with what to do about it.

    Args:
        x: held-out inputs [n, ...], as `fit` takes them: an array, or a dict or list of arrays.
        y: integer labels [n] or [n, 1] of `x`.
        gallery_x: inputs [m, ...] to search in; None searches `x`, each without itself.
        gallery_y: integer labels [m] or [m, 1]; given exactly when `gallery_x` is.
        metrics: names that `retrieval_metrics` knows.
        prefix: what the names in the logs begin with.
        batch_size: examples embedded at once; None is the default of `predict`.
        distance: a name that `kinfold.distances.get` knows, or a `Distance`.
        output: the embedding among several outputs: its key in a dict, its place in a list, or the
            name of its layer where the model was made of `keras.Input`. None where there is one.
        groups, gallery_groups: groups of `x` and of `gallery_x`, such as cameras; see
            `query_groups` and `gallery_groups` of `retrieval_metrics`.
        average: "queries" or "classes", as there.

    Raises:
        ValueError, TypeError: at construction, what `retrieval_metrics` raises about labels,
            metrics and distance, and where inputs and labels differ in number; before the first
            step, where the model cannot embed the first inputs, or what it gives is not one array
            [n, d]; at the end of an epoch, where the embeddings are not finite, or where ranks have
            other labels or embeddings of another size.
        RuntimeError: on the other ranks, where rank 0 could not measure.
        NotImplementedError: JAX runs in several processes, which divide the variables.

    Warns:
        UserWarning: the embeddings have collapsed.

    Example:

    >>> import keras, numpy as np
    >>> from kinfold.callbacks import RetrievalEvaluation
    >>> x = np.array([[0.0], [0.1], [5.0], [5.1]], "float32")
    >>> y = np.array([0, 0, 1, 1])
    >>> dense = keras.layers.Dense(1, kernel_initializer="ones")
    >>> model = keras.Sequential([keras.Input((1,)), dense])
    >>> model.compile("sgd", loss="mse")
    >>> evaluation = RetrievalEvaluation(x, y, metrics=("recall@1",), distance="euclidean")
    >>> stop = keras.callbacks.EarlyStopping("val_recall@1", mode="max", patience=1)
    >>> history = model.fit(x, x, epochs=9, verbose=0, callbacks=[evaluation, stop])
    >>> history.history["val_recall@1"]
    [1.0, 1.0]
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        gallery_x: Any | None = None,
        gallery_y: Any | None = None,
        metrics: Sequence[str] = ("recall@1", "map@r"),
        prefix: str = "val_",
        batch_size: int | None = None,
        distance: Any = "cosine",
        output: str | int | None = None,
        *,
        groups: Any | None = None,
        gallery_groups: Any | None = None,
        average: str = "queries",
    ) -> None:
        super().__init__()
        if isinstance(output, bool) or not isinstance(output, str | int | None):
            raise TypeError(
                "`output` must be the name or the place of an output, or None. "
                f"Received: output={output!r}."
            )
        if (gallery_x is None) != (gallery_y is None):
            raise ValueError(
                "`gallery_x` and `gallery_y` must be given together, or neither. "
                f"Received only `{'gallery_x' if gallery_y is None else 'gallery_y'}`."
            )
        self.average = checks.choice(average, "average", AVERAGES)
        self.task = Task.of(y, gallery_y, metrics, groups, gallery_groups)
        _check_count(x, len(self.task.query_classes), "x", "y")
        if gallery_x is not None:
            _check_count(gallery_x, len(self.task.gallery_classes), "gallery_x", "gallery_y")
        self.task.warn_of_left_out()
        self.x = x
        self.gallery_x = gallery_x
        self.prefix = prefix
        self.batch_size = batch_size
        self.distance = distances.get(distance)
        self.output = output
        self.collapsed = False
        self.predict_callbacks: list[keras.callbacks.Callback] = []  # of a subclass, to watch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Embed a first batch, so that what does not fit is told before the first step."""
        for x, name in ((self.x, "x"), (self.gallery_x, "gallery_x")):
            if x is not None:
                self._try(
                    keras.tree.map_structure(lambda part: part[: self.batch_size or 32], x), name
                )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        query, gallery = self._embed(self.x, self.task.query_classes), None
        if self.gallery_x is not None:
            gallery = self._embed(self.gallery_x, self.task.gallery_classes)
        # Ranks could round differently and then stop at different epochs. On one machine they would
        # also take each other's cores. So rank 0 measures, and the others take its numbers.
        values = processes.once(lambda: self._measure(query, gallery, epoch))
        if logs is not None:
            # The dictionary that the callbacks after this one and the history are given too.
            logs.update({self.prefix + name: value for name, value in values.items()})

    def tell(self, text: str) -> None:
        """Say that the embeddings have collapsed; a subclass may say it elsewhere."""
        warnings.warn(text, stacklevel=2)

    def _measure(
        self, query: np.ndarray, gallery: np.ndarray | None, epoch: int
    ) -> dict[str, float]:
        _check_finite(query, epoch)
        values = measure(self.task, query, gallery, self.distance, self.average)
        if not self.collapsed:
            self._watch(query, epoch)
        return values

    def _watch(self, embeddings: np.ndarray, epoch: int) -> None:
        if self.distance.needs_unit_rows:
            norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
            embeddings = embeddings / np.where(norms > 0, norms, 1)
        found = collapse.find(embeddings, len(np.unique(self.task.query_classes)))
        if found:
            self.collapsed = True
            self.tell(f"Epoch {epoch + 1}: {found} {collapse.ADVICE}")

    def _try(self, x: Any, name: str) -> None:
        try:
            found = self._predict(x)
        except Exception as error:
            shapes = keras.tree.map_structure(lambda part: tuple(part.shape), x)
            raise ValueError(
                f"The model cannot embed `{name}`: pass inputs as `fit` takes them. Received "
                f"shape {shapes}, and {type(error).__name__}: {error}"
            ) from error
        self._chosen(found)

    def _embed(self, x: Any, labels: np.ndarray) -> np.ndarray:
        return processes.embed(
            self.model,
            x,
            labels,
            self.batch_size or 32,
            lambda part: self._chosen(self._predict(part)),
        )

    def _predict(self, x: Any) -> Any:
        with _same_random_state(), batch_labels.weights_kept(self.model):
            return processes.predict(self.model, x, self.batch_size, self.predict_callbacks)

    def _chosen(self, outputs: Any) -> Any:
        """The embeddings [n, d] among what the model gives."""
        embeddings = outputs if self.output is None else self._one_of(outputs, self.output)
        shape = getattr(embeddings, "shape", None)
        if shape is None or len(shape) != 2:
            received = f"a {type(embeddings).__name__}" if shape is None else f"shape {shape}"
            if shape is None and self.output is None:
                received += f"; choose one of its outputs {self._names(outputs)} with `output`"
            raise ValueError(
                "RetrievalEvaluation needs one embedding per example, shape [n, d], from the "
                f"model. Received {received}."
            )
        return embeddings

    def _one_of(self, outputs: Any, output: str | int) -> Any:
        names = self._names(outputs)
        if output in names:
            return outputs[output if isinstance(outputs, dict) else names.index(output)]
        several = isinstance(outputs, list | tuple)
        if several and isinstance(output, int) and -len(outputs) <= output < len(outputs):
            return outputs[output]
        if not isinstance(outputs, dict) and not several and output in (0, *self._layer_names()):
            return outputs
        raise ValueError(f"The model has no output {output!r}. Its outputs are {names}.")

    def _names(self, outputs: Any) -> list[Any]:
        """The keys of a dict; of a list the names of its layers, or else its places."""
        if isinstance(outputs, dict):
            return list(outputs)
        layers = self._layer_names()
        if not isinstance(outputs, list | tuple):
            return layers
        return layers if len(layers) == len(outputs) else list(range(len(outputs)))

    def _layer_names(self) -> list[Any]:
        return list(getattr(self.model, "output_names", None) or [])


def _check_finite(embeddings: np.ndarray, epoch: int) -> None:
    bad = int(np.sum(~np.isfinite(embeddings).all(axis=1)))
    if bad:
        raise ValueError(
            f"Epoch {epoch + 1}: the embeddings hold NaN or infinity in {bad} of "
            f"{len(embeddings)} rows: training has diverged. Begin again with a lower learning "
            "rate, or with clipped gradients (the optimizer's `global_clipnorm`)."
        )


def _same_random_state() -> AbstractContextManager[None]:
    """Leave training its random numbers: each pass of torch's data loader draws a seed."""
    if keras.backend.backend() != "torch":
        return nullcontext()
    import torch

    return torch.random.fork_rng(devices=[])


def _check_count(x: Any, count: int, name: str, labels: str) -> None:
    for array in keras.tree.flatten(x):
        if not getattr(array, "shape", ()):
            raise TypeError(
                f"`{name}` must be an array [n, ...], or a dict or list of such arrays. "
                f"Received a {type(array).__name__}."
            )
        if array.shape[0] != count:
            raise ValueError(
                f"`{name}` and `{labels}` must have the same number of rows. "
                f"Received {array.shape[0]} and {count}."
            )
