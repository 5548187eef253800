"""What is done with a run once it is trained: embed, index, search, decide."""

from kinfold.trained.commands import calibrate as calibrate
from kinfold.trained.commands import embed as embed
from kinfold.trained.commands import index as index
from kinfold.trained.commands import search as search
from kinfold.trained.matching import Match as Match
from kinfold.trained.model import Trained as Trained
from kinfold.trained.model import load as load
