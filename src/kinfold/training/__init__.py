"""A run: a folder in which a model is trained, measured and kept, and can be resumed."""

from kinfold.training.commands import Interrupted as Interrupted
from kinfold.training.commands import Settings as Settings
from kinfold.training.commands import WriteError as WriteError
from kinfold.training.commands import compare as compare
from kinfold.training.commands import evaluate as evaluate
from kinfold.training.commands import resume as resume
from kinfold.training.commands import train as train
