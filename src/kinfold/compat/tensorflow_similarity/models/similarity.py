"""`tensorflow_similarity.models.SimilarityModel`."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from kinfold.compat.tensorflow_similarity.indexer import Indexer
from kinfold.compat.tensorflow_similarity.losses.xbm import XBM
from kinfold.compat.tensorflow_similarity.models.indexed import Indexed, index_config
from kinfold.model import EmbeddingModel


@keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")
class SimilarityModel(Indexed, EmbeddingModel):
    """A `kinfold.EmbeddingModel` with an index of what it embeds.

    Built of inputs and outputs, as `keras.Model` is.

    Example:

    >>> import keras, numpy as np
    >>> from kinfold.compat.tensorflow_similarity import losses, models
    >>> inputs = keras.Input((2,))
    >>> model = models.SimilarityModel(inputs, keras.layers.UnitNormalization()(inputs))
    >>> model.compile("sgd", losses.TripletLoss())
    >>> model.index(np.array([[1.0, 0.0], [0.0, 1.0]]), y=[3, 4], verbose=0)
    >>> [one.label for one in model.single_lookup(np.array([0.0, 5.0]), k=1)]
    [4]
    """

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        *args: Any,
        distance: Any = "auto",
        embedding_output: int | str | None = None,
        kv_store: Any = "memory",
        search: Any = "nmslib",
        evaluator: Any = "memory",
        stat_buffer_size: int = 1000,
        **kwargs: Any,
    ) -> None:
        """Compile as `kinfold.EmbeddingModel` does, and make an empty index.

        Args:
            optimizer, loss, *args, **kwargs: see `kinfold.EmbeddingModel.compile`. An `XBM` becomes
                its `memory_size` and `memory_warmup`.
            distance: of the index, a name or a `Distance`; "auto" for that of the first loss, or
                "cosine" without one.
            embedding_output: which of several outputs is the embedding.
            kv_store, search, evaluator, stat_buffer_size: as of `Indexer`.

        Raises:
            ValueError: "auto" with a loss that has no distance.
        """
        if isinstance(loss, XBM):
            kwargs = {"memory_size": loss.memory_size, "memory_warmup": loss.warmup_steps, **kwargs}
            loss = loss.loss
        if isinstance(distance, str) and distance == "auto":
            distance = _distance_of(loss)
        self._of_index = {
            **index_config(distance, search, kv_store, evaluator, stat_buffer_size),
            "embedding_output": embedding_output,
        }
        super().compile(optimizer, loss, *args, **kwargs)
        self.create_index(distance, search, kv_store, evaluator, embedding_output, stat_buffer_size)

    def create_index(
        self,
        distance: Any = "cosine",
        search: Any = "nmslib",
        kv_store: Any = "memory",
        evaluator: Any = "memory",
        embedding_output: int | str | None = None,
        stat_buffer_size: int = 1000,
    ) -> None:
        """Make an empty index in place of any that is there; see `Indexer`.

        Raises:
            ValueError: the model has no such output, or the size of its output is not known.
        """
        size, chosen = self._output_size(embedding_output)
        self._indexer = Indexer(
            size, distance, search, kv_store, evaluator, chosen, stat_buffer_size
        )

    def get_compile_config(self) -> dict[str, Any]:
        """Return the arguments of `compile`; parts of the index that have no name are left out."""
        config = super().get_compile_config()
        return {**config, **self._of_index} if config else config

    def _output_size(self, chosen: Any) -> tuple[int, Any]:
        """The size of the embedding, and which output it is; None for the only one."""
        shapes: Any = getattr(self, "output_shape", None)
        several = isinstance(shapes, dict | list) and not all(
            one is None or isinstance(one, int) for one in shapes
        )
        if several and chosen is None:
            chosen = next(iter(shapes)) if isinstance(shapes, dict) else 0
            warnings.warn(
                f"The model has {len(shapes)} outputs, of which {chosen!r} is indexed. Pass "
                "`embedding_output` for another.",
                stacklevel=4,
            )
        if chosen is not None:
            known = list(shapes) if isinstance(shapes, dict) else list(range(len(shapes or ())))
            if not several or chosen not in known:
                raise ValueError(
                    "`embedding_output` must be one of the model's outputs, "
                    f"{known if several else 'of which there is one: leave it out'}. Received: "
                    f"embedding_output={chosen!r}."
                )
            shapes = shapes[chosen]
        if not isinstance(shapes, tuple) or len(shapes) != 2 or shapes[1] is None:
            raise ValueError(
                "An index needs embeddings [batch, d] of a known size. Received a model with an "
                f"output of shape {shapes}; build it of keras.Input, or call it once."
            )
        return shapes[1], chosen


def _distance_of(loss: Any) -> Any:
    if loss is None:
        return "cosine"
    first = keras.tree.flatten(loss)[0]
    if not hasattr(first, "distance"):
        raise ValueError(
            "distance='auto' takes the distance of the first loss, and this one has none. Pass "
            f"distance='cosine' or another. Received: loss={first!r}."
        )
    return first.distance
