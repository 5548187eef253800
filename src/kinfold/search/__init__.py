"""An index of embeddings: what is known, and what lies nearest to something new."""

from kinfold.search.index import Index as Index
from kinfold.search.index import Neighbours as Neighbours
