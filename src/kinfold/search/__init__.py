"""An index of embeddings: what is known, and what lies nearest to something new."""

from kinfold.search.found import Neighbours as Neighbours
from kinfold.search.index import Index as Index
