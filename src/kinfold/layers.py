"""Layers that end an embedding model."""

from typing import Any

import keras

from kinfold import distances
from kinfold.core import checks, chunks
from kinfold.core.checks import Tensor
from kinfold.core.numerics import unit_rows


@keras.saving.register_keras_serializable("kinfold")
class L2Embedding(keras.layers.Dense):
    """A dense layer whose outputs have unit norm: y / ||y|| with y = x W + b.

    The norm is taken in float32 at least, also under mixed precision, and a zero row stays zero
    with a finite gradient (`keras.layers.UnitNormalization` gives NaN there).

    Args:
        units: size of the embedding.
        **kwargs: those of `keras.layers.Dense`, except `activation`.

    Example:

    >>> import numpy as np
    >>> from kinfold.layers import L2Embedding
    >>> y = L2Embedding(4)(np.ones((2, 3), "float32"))
    >>> tuple(y.shape)
    (2, 4)
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        if kwargs.pop("activation", None) not in (None, "linear"):
            raise ValueError("L2Embedding takes no `activation`: embeddings need every direction.")
        super().__init__(units, **kwargs)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return unit_rows(super().call(inputs, training=training))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("activation", None)
        return config


@keras.saving.register_keras_serializable("kinfold")
class PairDistance(keras.layers.Layer):
    """Distance between the two embeddings of each pair, for `ContrastiveLoss`.

    Args:
        distance: a name, instance or config; see `kinfold.distances.get`.
        **kwargs: those of `keras.layers.Layer`.

    Call arguments:
        inputs: two embeddings [batch, d], as a list or tuple. Returns distances [batch].

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold.layers import PairDistance
    >>> left, right = np.zeros((1, 2), "float32"), np.array([[3, 4]], "float32")
    >>> ops.convert_to_numpy(PairDistance()([left, right]))
    array([5.], dtype=float32)
    """

    def __init__(self, distance: Any = "euclidean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.distance = distances.get(distance)

    def build(self, input_shape: Any) -> None:
        if len(input_shape) != 2:
            raise ValueError(
                f"PairDistance takes two embeddings, [left, right]. Received shapes {input_shape}."
            )
        left, right = (tuple(shape) for shape in input_shape)
        if len(left) != 2 or len(right) != 2 or left[1] != right[1]:
            raise ValueError(
                "PairDistance takes two embeddings of the same shape [batch, dimension]. "
                f"Received shapes {left} and {right}."
            )
        self.built = True

    def call(self, inputs: Any) -> Tensor:
        left, right = inputs
        return self.distance.paired(left, right)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (input_shape[0][0],)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "distance": distances.serialize(self.distance)}


@keras.saving.register_keras_serializable("kinfold")
class Chunked(keras.layers.Wrapper):
    """A layer or model that runs in chunks of the batch, for batches larger than memory allows.

    What a network computes on its way takes far more memory than its weights or its outputs, and
    training keeps it for the backward pass. Here the batch goes through in chunks, of which only
    the inputs and the outputs are kept; the backward pass computes each chunk again, one at a
    time. A loss after it sees the whole batch, and outputs and gradients are those of the layer
    itself, in the memory of one chunk and for one more forward pass.

    A layer with state is called once per chunk, in order. `keras.layers.BatchNormalization`, in
    training, so takes the statistics of a chunk where it would take the batch's, and moves its
    averages once per chunk; layers such as `Dropout` draw other random numbers for each chunk, and
    the same ones when it is computed again.

    Variables, dtypes and precision are those of the layer: `chunked.layer` shares its weights, and
    goes on without chunks. A batch that is one chunk is computed once, as without this layer.

    Args:
        layer: a layer or model that returns rows [n, ...] for rows [n, ...], each from the row of
            its own. It may take and return nests of tensors.
        chunk_size: number of rows in a chunk. The last chunk of a batch may have fewer.
        **kwargs: those of `keras.layers.Layer`, except `dtype`.

    Call arguments:
        inputs: as the layer takes them, cut along the first axis. Keras masks are not passed on.

    Raises:
        ValueError: the layer adds a loss of its activations, which the chunks do not determine (of
            weights it may), changes variables that are not its own, or returns something else than
            a row for each row.

    Reference:
        Chen, Xu, Zhang, Guestrin: Training Deep Nets with Sublinear Memory Cost, 2016
        (https://arxiv.org/abs/1604.06174); Gao, Zhang, Han, Callan: Scaling Deep Contrastive
        Learning Batch Size under Memory Limited Setup, 2021 (https://arxiv.org/abs/2101.06983).

    Example:

    >>> import keras, numpy as np
    >>> from kinfold.layers import Chunked
    >>> encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> inputs = keras.Input((8,))
    >>> model = keras.Model(inputs, Chunked(encoder, chunk_size=16)(inputs))
    >>> model.predict(np.ones((100, 8), "float32"), batch_size=100, verbose=0).shape
    (100, 4)
    """

    def __init__(self, layer: keras.layers.Layer, chunk_size: int, **kwargs: Any) -> None:
        if "dtype" in kwargs:
            raise ValueError("Chunked takes no `dtype`: that of its layer holds.")
        # Nothing is cast on the way to the layer, nor are its variables when they are read.
        super().__init__(layer, dtype="float32", autocast=False, **kwargs)
        self.chunk_size = checks.count(chunk_size, "chunk_size")
        self.built = layer.built

    def build(self, input_shape: Any) -> None:
        if not self.layer.built:
            self.layer(keras.tree.map_shape_structure(keras.KerasTensor, input_shape))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return chunks.run(self.layer, self.chunk_size, inputs, training)

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        return self.layer.compute_output_spec(inputs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("dtype", None)
        return {**config, "chunk_size": self.chunk_size}
