"""Pairwise distances between rows of embeddings: x [t, d] and r [m, d] give [t, m]."""

from typing import Any

import keras
from keras import ops

from kinfold.core import squares
from kinfold.core.checks import Tensor
from kinfold.core.numerics import divide, square_root, without_noise


class Distance:
    """A named distance between embeddings; subclass it to add one of your own.

    A subclass defines `pairwise` and `paired`, and is registered with
    `keras.saving.register_keras_serializable` so that losses that use it can be saved.

    Attributes:
        name: what configs and messages call it.
        similarity: True where larger means closer.
        needs_unit_rows: True where inputs are expected to have unit norm.
        of_differences: True where it depends on x - r alone, so that both may be moved together.
        linear_above: for a distance with `of_dot`, a function of the dot product, and `dot_slope`,
            its derivative: the distance above which that is constant, and the constant.
    """

    name = "distance"
    similarity = False
    needs_unit_rows = False
    of_differences = False
    linear_above = (float("inf"), 1.0)

    def __call__(self, x: Tensor, r: Tensor) -> Tensor:
        """Distance of every row of `x` [t, d] to every row of `r` [m, d]: [t, m]."""
        return self.pairwise(ops.convert_to_tensor(x), ops.convert_to_tensor(r))

    def pairwise(self, x: Tensor, r: Tensor) -> Tensor:
        """Distance of every row of `x` [t, d] to every row of `r` [m, d]: [t, m]."""
        raise NotImplementedError

    def paired(self, x: Tensor, r: Tensor) -> Tensor:
        """Distance of row i of `x` [n, d] to row i of `r` [n, d]: [n]."""
        raise NotImplementedError

    def squares(self, r: Tensor) -> Tensor | None:
        """What `pairwise` takes of references as a third argument, [m] or [m, ...], or None.

        It is computed once, where many blocks of anchors meet the same constant `r`.
        """
        return None

    def numbers_a_pair(self, dimension: int) -> int:
        """Numbers that `pairwise` holds per pair. The more there are, the smaller a block is."""
        return 1

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Distance":
        return cls(**config)

    def __repr__(self) -> str:
        return f"<Distance {self.name}>"


def _dot(x: Tensor, r: Tensor) -> Tensor:
    return x @ ops.transpose(r)  # the ops.matmul of torch and JAX narrows float64


def _square(x: Tensor) -> Tensor:
    return ops.sum(x * x, axis=-1)


class Cosine(Distance):
    """max(1 - x.r, 0), for rows of unit norm; 0 where it is no more than rounding."""

    name = "cosine"
    needs_unit_rows = True
    linear_above = (0.0, -1.0)

    def of_dot(self, dot: Tensor) -> Tensor:
        return without_noise(1.0 - dot)

    def dot_slope(self, distance: Tensor) -> Tensor:
        return -ops.sign(distance)  # 0 where it is clipped

    def pairwise(self, x: Tensor, r: Tensor) -> Tensor:
        return self.of_dot(_dot(x, r))

    def paired(self, x: Tensor, r: Tensor) -> Tensor:
        return self.of_dot(ops.sum(x * r, axis=-1))


class Euclidean(Distance):
    """||x - r||, from norms and one matrix product; 0 with zero gradient where they meet."""

    name = "euclidean"
    of_differences = True

    def squares(self, r: Tensor) -> Tensor:
        return squares.known(r)

    def pairwise(self, x: Tensor, r: Tensor, known: Tensor | None = None) -> Tensor:
        return squares.distance(x, r, known)

    def paired(self, x: Tensor, r: Tensor) -> Tensor:
        return square_root(_square(x - r))


class SquaredEuclidean(Distance):
    """||x - r||^2, from norms and one matrix product."""

    name = "squared_euclidean"
    of_differences = True

    def squares(self, r: Tensor) -> Tensor:
        return squares.known(r)

    def pairwise(self, x: Tensor, r: Tensor, known: Tensor | None = None) -> Tensor:
        return squares.squared(x, r, known)

    def paired(self, x: Tensor, r: Tensor) -> Tensor:
        return _square(x - r)


class InnerProduct(Distance):
    """x.r: a similarity, larger is closer."""

    name = "inner_product"
    similarity = True
    linear_above = (-float("inf"), 1.0)

    def of_dot(self, dot: Tensor) -> Tensor:
        return dot

    def dot_slope(self, distance: Tensor) -> Tensor:
        return ops.ones_like(distance)

    def pairwise(self, x: Tensor, r: Tensor) -> Tensor:
        return _dot(x, r)

    def paired(self, x: Tensor, r: Tensor) -> Tensor:
        return ops.sum(x * r, axis=-1)


class Manhattan(Distance):
    """sum |x - r|; a block holds t * m * d differences, there being no matrix product for it."""

    name = "manhattan"
    of_differences = True

    def pairwise(self, x: Tensor, r: Tensor) -> Tensor:
        return ops.sum(ops.abs(ops.expand_dims(x, 1) - ops.expand_dims(r, 0)), axis=-1)

    def numbers_a_pair(self, dimension: int) -> int:
        return dimension

    def paired(self, x: Tensor, r: Tensor) -> Tensor:
        return ops.sum(ops.abs(x - r), axis=-1)


class SNR(Distance):
    """Var(x - r) / Var(x), population variance over d: noise to signal, not symmetric.

    An `x` without variance gives 0, with zero gradient.
    """

    name = "snr"

    def pairwise(self, x: Tensor, r: Tensor) -> Tensor:
        x, r = _centred(x), _centred(r)
        return divide(squares.squared(x, r), ops.expand_dims(_square(x), 1))

    def paired(self, x: Tensor, r: Tensor) -> Tensor:
        x, r = _centred(x), _centred(r)
        return divide(_square(x - r), _square(x))


def _centred(x: Tensor) -> Tensor:
    for _ in range(2):  # the first mean is rounded; far from the origin that is much
        x = x - ops.sum(x, axis=-1, keepdims=True) / x.shape[-1]  # ops.mean narrows on JAX
    return x


_KNOWN = {
    kind.name: kind()
    for kind in (Cosine, Euclidean, SquaredEuclidean, InnerProduct, Manhattan, SNR)
}


def get(distance: Any) -> Distance:
    """Find a distance by its name, config, or itself.

    Args:
        distance: "cosine", "euclidean", "squared_euclidean", "inner_product", "manhattan" or
            "snr"; a `Distance`; or what `serialize` returned.

    Returns:
        A `Distance`, callable on x [t, d] and r [m, d] and giving [t, m].

    Raises:
        ValueError: the name is unknown.
        TypeError: it is something else.

    Example:

    >>> import numpy as np
    >>> from keras import ops
    >>> from kinfold import distances
    >>> euclidean = distances.get("euclidean")
    >>> x, r = np.zeros((1, 2), "float32"), np.array([[3.0, 4.0], [0.0, 1.0]], "float32")
    >>> ops.convert_to_numpy(euclidean(x, r))
    array([[5., 1.]], dtype=float32)
    """
    if isinstance(distance, Distance):
        return distance
    if isinstance(distance, dict):
        if set(distance) == {"name"}:
            return get(distance["name"])
        return get(keras.saving.deserialize_keras_object(distance))
    if not isinstance(distance, str):
        raise TypeError(
            "`distance` must be a name, a kinfold.distances.Distance or its config. "
            f"Received: distance={distance!r}."
        )
    if distance not in _KNOWN:
        raise ValueError(
            f"Unknown distance. Expected one of {sorted(_KNOWN)}. Received: distance={distance!r}."
        )
    return _KNOWN[distance]


def serialize(distance: Distance) -> Any:
    """Return what `get` turns back into `distance`: a name, or a config for one of your own."""
    if _KNOWN.get(distance.name) is distance:
        return distance.name
    return keras.saving.serialize_keras_object(distance)
