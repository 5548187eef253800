"""Encoders: models from images or vectors to embeddings of unit norm."""

import inspect
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from _kinfold_text import did_you_mean
from kinfold.layers import L2Embedding


def small_convnet(input_shape: tuple[int, int, int], embedding_size: int = 128) -> keras.Model:
    """Build a small residual network, light enough to train on a CPU.

    A convolution of 4 x 4 halves the image; then blocks halve it again, until no side is longer
    than 4: a convolution of 3 x 3 with stride 2, and a second one added to the first. Each has
    batch normalisation and ReLU. An `L2Embedding` of all that is left ends it. 0.5 million weights
    for images of 32 x 32.

    Args:
        input_shape: (height, width, channels) of the images.
        embedding_size: dimensions of the embedding.

    Returns:
        A model from images [n, height, width, channels] with values from 0 to 255, uint8 or
        floating, to float32 embeddings [n, embedding_size] of unit norm.

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
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
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
) -> keras.Model:
    """Build an encoder on a network of `keras.applications`, averaged over the image.

    Args:
        name: a model of `keras.applications`, such as "MobileNetV2" or "ResNet50".
        input_shape: (height, width, channels) of the images.
        embedding_size: dimensions of the embedding.
        weights: None for random ones, or "imagenet" (downloaded by Keras, once). For those of a
            file see `kinfold.pretrained`.

    Returns:
        A model from images [n, height, width, channels] with values from 0 to 255, uint8 or
        floating, to float32 embeddings [n, embedding_size] of unit norm. The scaling that the
        network expects is inside.

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
    return _embed(inputs, network(_scale(inputs, name)), embedding_size)


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
    rows = layers.UnitNormalization()(inputs)
    x = layers.BatchNormalization(center=False, scale=False)(rows)
    x = layers.Dense(256, use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    linear = layers.Rescaling(input_size**0.5)(rows)
    embedding = L2Embedding(embedding_size, use_bias=False, name="embedding")
    model = keras.Model(inputs, embedding(layers.Concatenate()([linear, x])))
    kernel = np.zeros(embedding.kernel.shape, "float32")
    kernel[:input_size] = np.eye(input_size, embedding_size)
    if embedding_size < input_size:
        projection = keras.initializers.Orthogonal()((input_size, embedding_size))
        kernel[:input_size] = ops.convert_to_numpy(projection)
    embedding.kernel.assign(kernel)
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
    embedding = L2Embedding(embedding_size, name="embedding", dtype="float32")
    return keras.Model(inputs, embedding(features))


def _image_shape(input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise ValueError(
            "`input_shape` must be (height, width, channels). "
            f"Received: input_shape={tuple(input_shape)}."
        )
    return input_shape


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
