"""How well embeddings find what is of their kind, and the neighbours of each."""

from kinfold.metrics.retrieval import neighbours as neighbours
from kinfold.metrics.retrieval import retrieval_metrics as retrieval_metrics
