"""Batches with several examples of each of several classes, for `fit` and for other loaders.

A pair loss learns only where a batch holds both positive and negative pairs. A batch drawn at
random from many classes holds almost no positive pair; these hold a fixed number of examples of
each of a fixed number of classes.
"""

from kinfold.batches._for_fit import ClassBalancedBatches as ClassBalancedBatches
from kinfold.batches._indices import ClassBalancedIndices as ClassBalancedIndices
from kinfold.batches._mining import confused_classes as confused_classes
