"""TensorFlow Similarity on Keras 3, under its names: training, index, evaluation and pictures."""

from kinfold.compat.tensorflow_similarity import architectures as architectures
from kinfold.compat.tensorflow_similarity import augmenters as augmenters
from kinfold.compat.tensorflow_similarity import callbacks as callbacks
from kinfold.compat.tensorflow_similarity import classification_metrics as classification_metrics
from kinfold.compat.tensorflow_similarity import distances as distances
from kinfold.compat.tensorflow_similarity import evaluators as evaluators
from kinfold.compat.tensorflow_similarity import indexer as indexer
from kinfold.compat.tensorflow_similarity import layers as layers
from kinfold.compat.tensorflow_similarity import losses as losses
from kinfold.compat.tensorflow_similarity import matchers as matchers
from kinfold.compat.tensorflow_similarity import models as models
from kinfold.compat.tensorflow_similarity import retrieval_metrics as retrieval_metrics
from kinfold.compat.tensorflow_similarity import samplers as samplers
from kinfold.compat.tensorflow_similarity import schedules as schedules
from kinfold.compat.tensorflow_similarity import search as search
from kinfold.compat.tensorflow_similarity import stores as stores
from kinfold.compat.tensorflow_similarity import training_metrics as training_metrics
from kinfold.compat.tensorflow_similarity import types as types
from kinfold.compat.tensorflow_similarity import utils as utils
from kinfold.compat.tensorflow_similarity import visualization as visualization
