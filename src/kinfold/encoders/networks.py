"""Encoders: models from images or vectors to embeddings of unit norm."""

import inspect
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from _kinfold_text import did_you_mean
from kinfold.encoders.scaling import Scaling
from kinfold.layers import L2Embedding

EMBEDDING = "embedding"  # the name of the layer that ends an encoder, in training and when saved
LARGE = 32  # pixels per side: `raw` averages larger images down to about this


def small_convnet(
    input_shape: tuple[int, int, int], embedding_size: int = 128, scaling: Scaling | None = None
) -> keras.Model:
    """Build a small residual network, light enough to train on a CPU.

    A convolution of 4 x 4 halves the image; then blocks halve it again, until no side is longer
    than 4: a convolution of 3 x 3 with stride 2, and a second one added to the first. Each has
    batch normalisation and ReLU. An `L2Embedding` of all that is left ends it. 0.5 million weights
    for images of 32 x 32.

    Args:
        input_shape: (height, width, channels) of the images.
        embedding_size: dimensions of the embedding.
        scaling: the values that the images have; None for 0 to 255. Its layer is the first.

    Returns:
        A model from images [n, height, width, channels], uint8 or floating, to float32 embeddings
        [n, embedding_size] of unit norm.

    Raises:
        ValueError: the shape is not that of an image.

    Example:

    >>> import numpy as np
    >>> from kinfold.encoders import small_convnet
    >>> model = small_convnet((32, 32, 1), embedding_size=8)
    >>> tuple(model(np.zeros((2, 32, 32, 1), "uint8")).shape)
    (2, 8)
    """
    inputs = keras.Input(_image_shape(input_shape), name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(_to_bytes(inputs, scaling))
    filters = 32
    x = _convolution(x, filters, kernel=4, strides=2)
    while filters == 32 or max(x.shape[1:3]) > 4:
        filters = min(2 * filters, 128)
        x = _convolution(x, filters, kernel=3, strides=2)
        x = layers.Add()([x, _convolution(x, filters, kernel=3, strides=1)])
    return _embed(inputs, layers.Flatten(data_format="channels_last")(x), embedding_size)


def _convolution(x: Any, filters: int, kernel: int, strides: int) -> Any:
    convolution = layers.Conv2D(
        filters, kernel, strides, padding="same", use_bias=False, data_format="channels_last"
    )
    return layers.ReLU()(layers.BatchNormalization()(convolution(x)))


def application(
    name: str,
    input_shape: tuple[int, int, int],
    embedding_size: int = 128,
    weights: str | None = None,
    scaling: Scaling | None = None,
) -> keras.Model:
    """Build an encoder on a network of `keras.applications`, averaged over the image.

    Args:
        name: a model of `keras.applications`, such as "MobileNetV2" or "ResNet50".
        input_shape: (height, width, channels) of the images.
        embedding_size: dimensions of the embedding.
        weights: None for random ones, or "imagenet" (downloaded by Keras, once). For those of a
            file see `kinfold.encoders.pretrained`.
        scaling: the values that the images have; None for 0 to 255. Its layer is the first.

    Returns:
        A model from images [n, height, width, channels], uint8 or floating, to float32 embeddings
        [n, embedding_size] of unit norm. What the network expects of its input is done inside.

    Raises:
        ValueError: the name is unknown, or the shape is not that of an image (for ImageNet's
            weights, of a colour image).
        ConnectionError: the weights could not be downloaded.

    Example:

    >>> from kinfold.encoders import application
    >>> application("MobileNet", (32, 32, 3), embedding_size=8).output_shape
    (None, 8)
    """
    make = getattr(keras.applications, check_application(name))
    inputs = keras.Input(_image_shape(input_shape), name="images")
    if weights == "imagenet" and input_shape[-1] != 3:
        raise ValueError(
            "The weights of ImageNet are for colour images, of 3 channels. Received images of "
            f"{input_shape[-1]}."
        )
    try:
        network = make(
            include_top=False, weights=weights, input_shape=tuple(input_shape), pooling="avg"
        )
    except ValueError:
        raise
    except Exception as error:  # of the download: Keras raises a plain Exception
        if weights is None:
            raise
        raise ConnectionError(
            f"The weights of {name} for ImageNet could not be downloaded: "
            f"{str(error).splitlines()[0]}. On a machine with a network Keras keeps them in its "
            "folder, ~/.keras/models; take the file from there as --weights FILE."
        ) from error
    return _embed(inputs, network(_scale(_to_bytes(inputs, scaling), name)), embedding_size)


def vector_head(input_size: int, embedding_size: int = 128) -> keras.Model:
    """Build a head for vectors, such as the embeddings of another model, that starts from them.

    With u the unit-norm vector of d values, the embedding is y / ||y||, with

        y = sqrt(d) u A + ReLU(norm(norm(u) W)) B

    where W gives 256 hidden units and norm is batch normalisation. A starts as the identity and B
    as zeros: before training cosine similarities are those of the vectors themselves. With fewer
    dimensions than the vectors A starts as a random orthogonal projection, which loses some.

    Args:
        input_size: dimensions of the vectors.
        embedding_size: dimensions of the embedding.

    Returns:
        A model from vectors [n, input_size] to float32 embeddings [n, embedding_size] of unit norm.

    Example:

    >>> import numpy as np
    >>> from kinfold.encoders import vector_head
    >>> x = np.array([[3.0, 4.0]], "float32")
    >>> vector_head(2, embedding_size=3).predict(x, verbose=0).round(4)
    array([[0.6, 0.8, 0. ]], dtype=float32)
    """
    inputs = keras.Input((input_size,), name="vectors")
    # In float32 also under mixed precision: half precision holds no vector beyond 65,504.
    rows = layers.UnitNormalization(dtype="float32")(inputs)
    x = layers.BatchNormalization(center=False, scale=False)(rows)
    x = layers.Dense(256, use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    linear = layers.Rescaling(input_size**0.5)(rows)
    embedding = L2Embedding(embedding_size, use_bias=False, name=EMBEDDING, dtype="float32")
    model = keras.Model(inputs, embedding(layers.Concatenate()([linear, x])))
    kernel = np.zeros(embedding.kernel.shape, "float32")
    kernel[:input_size] = np.eye(input_size, embedding_size)
    if embedding_size < input_size:
        projection = keras.initializers.Orthogonal()((input_size, embedding_size))
        kernel[:input_size] = ops.convert_to_numpy(projection)
    embedding.kernel.assign(kernel)
    return model


def raw(shape: tuple[int, ...]) -> keras.Model:
    """Build the model that learns nothing: its embedding is the input itself, at unit norm.

    It computes what `training.raw_input.pixels` does: images larger than 32 pixels per side are
    averaged over squares, and all values of an image stand in one row.

    Args:
        shape: of an example: (height, width, channels) of an image, or (d,) of a vector.

    Returns:
        A model of plain Keras layers, to float32 embeddings of unit norm; a row of zeros stays so.

    Example:

    >>> import numpy as np
    >>> from kinfold.encoders import raw
    >>> raw((2,)).predict(np.array([[3.0, 4.0]], "float32"), verbose=0)
    array([[0.6, 0.8]], dtype=float32)
    """
    x = inputs = keras.Input(shape, name="vectors" if len(shape) == 1 else "images")
    if len(shape) == 3:
        common: dict[str, Any] = {"data_format": "channels_last", "dtype": "float32"}
        if max(shape[:2]) > LARGE:
            cell = -(-max(shape[:2]) // LARGE)
            size = (min(cell, shape[0]), min(cell, shape[1]))
            x = layers.AveragePooling2D(size, **common)(x)
        x = layers.Flatten(**common)(x)
    return keras.Model(inputs, layers.UnitNormalization(dtype="float32")(x), name="raw")


def plain(encoder: keras.Model) -> keras.Model:
    """Build the same model of Keras's own layers alone, so that its file needs nothing else.

    Training ends an encoder in an `L2Embedding`, whose gradient is finite at zero. A dense layer
    and a `UnitNormalization` compute the same, and Keras loads them without Kinfold. The other
    layers are shared with the encoder; the dense layer holds a copy of the weights.

    Args:
        encoder: one of this module.

    Example:

    >>> from kinfold.encoders import plain, vector_head
    >>> [layer.name for layer in plain(vector_head(4)).layers[-2:]]
    ['embedding', 'unit_norm']
    """
    old = encoder.layers[-1]
    dense = layers.Dense(old.units, use_bias=old.use_bias, name=EMBEDDING, dtype="float32")
    unit = layers.UnitNormalization(name="unit_norm", dtype="float32")
    model = keras.Model(encoder.input, unit(dense(old.input)), name=encoder.name)
    for variable, value in zip(dense.weights, old.weights, strict=True):
        variable.assign(value)
    return model


def check_application(name: str) -> str:
    """Return `name` if `keras.applications` has a model of that name; ValueError if not."""
    known = sorted(
        known
        for known, value in vars(keras.applications).items()
        if known[0].isupper() and inspect.isfunction(value)
    )
    if name not in known:
        raise ValueError(
            f"Unknown backbone. Expected 'small' or one of keras.applications: {', '.join(known)}. "
            f"Received: {name!r}.{did_you_mean(name, ['small', *known])}"
        )
    return name


def _embed(inputs: Any, features: Any, embedding_size: int) -> keras.Model:
    # In float32 also where the layers before it are in half precision.
    embedding = L2Embedding(embedding_size, name=EMBEDDING, dtype="float32")
    return keras.Model(inputs, embedding(features))


def _image_shape(input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise ValueError(
            "`input_shape` must be (height, width, channels). "
            f"Received: input_shape={tuple(input_shape)}."
        )
    return input_shape


def _to_bytes(inputs: Any, scaling: Scaling | None) -> Any:
    layer = scaling.layer() if scaling else None
    return layer(inputs) if layer else inputs


# As the `preprocess_input` of each family does it.
_SCALED_INSIDE = ("ConvNeXt", "EfficientNet", "MobileNetV3")
_TORCH_MEAN, _TORCH_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)  # blue, green, red


def _scale(x: Any, name: str) -> Any:
    colour = x.shape[-1] == 3
    if name.startswith(_SCALED_INSIDE):
        return x
    if colour and name.startswith("DenseNet"):
        scale = [1 / (255 * std) for std in _TORCH_STD]
        offset = [-mean / std for mean, std in zip(_TORCH_MEAN, _TORCH_STD, strict=True)]
        return layers.Rescaling(scale, offset)(x)
    if colour and name.startswith(("VGG", "ResNet")) and not name.endswith("V2"):
        return layers.Rescaling(1.0, [-mean for mean in _CAFFE_MEAN])(ops.flip(x, axis=-1))
    return layers.Rescaling(1 / 127.5, offset=-1.0)(x)
