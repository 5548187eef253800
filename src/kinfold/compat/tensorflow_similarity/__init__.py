"""TensorFlow Similarity's losses, distances and embedding layer on Keras 3, under its names."""

from kinfold.compat.tensorflow_similarity import distances as distances
from kinfold.compat.tensorflow_similarity import layers as layers
from kinfold.compat.tensorflow_similarity import losses as losses
