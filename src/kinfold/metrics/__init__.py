"""Retrieval metrics of embeddings, and their nearest neighbours."""

from kinfold.metrics.retrieval import neighbours as neighbours
from kinfold.metrics.retrieval import retrieval_metrics as retrieval_metrics
from kinfold.metrics.table import retrieval_table as retrieval_table
