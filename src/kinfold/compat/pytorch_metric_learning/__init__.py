"""`pytorch_metric_learning.losses`, under its names, with its arguments and numbers."""

from kinfold.compat.pytorch_metric_learning import losses as losses
