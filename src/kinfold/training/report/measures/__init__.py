"""The numbers behind the report, from embeddings and labels alone."""

from kinfold.training.report.measures.copies import Duplicate as Duplicate
from kinfold.training.report.measures.copies import Duplicates as Duplicates
from kinfold.training.report.measures.copies import Other as Other
from kinfold.training.report.measures.copies import Rows as Rows
from kinfold.training.report.measures.copies import duplicates as duplicates
from kinfold.training.report.measures.labels import Suspect as Suspect
from kinfold.training.report.measures.labels import suspects as suspects
from kinfold.training.report.measures.pairs import Similarities as Similarities
from kinfold.training.report.measures.pairs import similarities as similarities
from kinfold.training.report.measures.plane import on_grid as on_grid
from kinfold.training.report.measures.plane import plane as plane
from kinfold.training.report.measures.plane import some_examples as some_examples
from kinfold.training.report.measures.queries import DEEPEST as DEEPEST
from kinfold.training.report.measures.queries import Confusion as Confusion
from kinfold.training.report.measures.queries import Group as Group
from kinfold.training.report.measures.queries import Neighbourhood as Neighbourhood
from kinfold.training.report.measures.queries import Query as Query
from kinfold.training.report.measures.queries import class_sizes as class_sizes
from kinfold.training.report.measures.queries import confusions as confusions
from kinfold.training.report.measures.queries import gallery as gallery
from kinfold.training.report.measures.queries import recall_curve as recall_curve
