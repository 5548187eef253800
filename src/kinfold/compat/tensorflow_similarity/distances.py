"""`tensorflow_similarity.distances`: its names and aliases, for the distances of Kinfold."""

from typing import Any

import keras

from kinfold import distances
from kinfold.distances import Distance as Distance

_register = keras.saving.register_keras_serializable("kinfold.tensorflow_similarity")


@_register
class CosineDistance(distances.Cosine):
    """max(1 - x.r, 0), for rows of unit norm: `kinfold.distances.Cosine`."""


@_register
class EuclideanDistance(distances.Euclidean):
    """||x - r||: `kinfold.distances.Euclidean`."""


@_register
class SquaredEuclideanDistance(distances.SquaredEuclidean):
    """||x - r||^2: `kinfold.distances.SquaredEuclidean`."""


@_register
class InnerProductSimilarity(distances.InnerProduct):
    """x.r, larger is closer: `kinfold.distances.InnerProduct`."""


@_register
class ManhattanDistance(distances.Manhattan):
    """sum |x - r|: `kinfold.distances.Manhattan`."""


@_register
class SNRDistance(distances.SNR):
    """Var(x - r) / Var(x): `kinfold.distances.SNR`."""


# Our name and their other names, in any case.
_ALIASES = {
    "cosine": ("cosinedistance",),
    "euclidean": ("euclideandistance", "l2", "pythagorean"),
    "squared_euclidean": ("squaredeuclideandistance", "sql2", "sqeuclidean"),
    "inner_product": ("innerproductsimilarity", "ip"),
    "manhattan": ("manhattandistance", "l1", "taxicab"),
    "snr": ("snrdistance", "signal-to-noise-ratio"),
}
_NAMES = {alias: name for name, others in _ALIASES.items() for alias in (name, *others)}


def get(identifier: Any) -> Distance:
    """Find a distance by one of TensorFlow Similarity's names.

    Args:
        identifier: a name, in any case; a `Distance`; or a config.

    Returns:
        A `kinfold.distances.Distance`.

    Raises:
        ValueError: the name is unknown.
        TypeError: it is something else.

    Example:

    >>> from kinfold.compat.tensorflow_similarity import distances
    >>> distances.get("l2"), distances.get("CosineDistance")
    (<Distance euclidean>, <Distance cosine>)
    """
    if isinstance(identifier, dict) and set(identifier) == {"class_name", "config"}:
        identifier = identifier["class_name"]  # as it serialized them
    if not isinstance(identifier, str):
        return distances.get(identifier)
    if identifier.lower() not in _NAMES:
        raise ValueError(
            f"Unknown distance. Expected one of {sorted(_NAMES)}. Received: "
            f"distance={identifier!r}."
        )
    return distances.get(_NAMES[identifier.lower()])


def distance_canonicalizer(user_distance: Any) -> Distance:
    """Find a distance: the name that `get` had in earlier releases."""
    return get(user_distance)
