"""A run as files for another machine: its model in other formats, checked against the run."""

from kinfold.shipping.exporting import export as export
from kinfold.shipping.formats import FORMATS as FORMATS
