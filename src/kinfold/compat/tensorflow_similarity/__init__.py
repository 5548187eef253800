"""TensorFlow Similarity's losses on Keras 3, under its names."""

from kinfold.compat.tensorflow_similarity import losses as losses
