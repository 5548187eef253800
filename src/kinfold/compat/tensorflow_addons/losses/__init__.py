"""`tfa.losses`, under its names, with its signatures and numbers."""

from kinfold.compat.tensorflow_addons.losses.contrastive import ContrastiveLoss as ContrastiveLoss
from kinfold.compat.tensorflow_addons.losses.contrastive import contrastive_loss as contrastive_loss
