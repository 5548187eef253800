"""`tensorflow_similarity.losses`, under its names, with its signatures and numbers."""

from kinfold.compat.tensorflow_similarity.losses.circle_loss import CircleLoss as CircleLoss
