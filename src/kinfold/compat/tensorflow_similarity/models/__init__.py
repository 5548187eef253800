"""`tensorflow_similarity.models`: models with an index, and models that learn from two views."""

from kinfold.compat.tensorflow_similarity.models.contrastive import (
    ContrastiveModel as ContrastiveModel,
)
from kinfold.compat.tensorflow_similarity.models.contrastive import (
    create_contrastive_model as create_contrastive_model,
)
from kinfold.compat.tensorflow_similarity.models.similarity import (
    SimilarityModel as SimilarityModel,
)
