"""Data to train and test on: characters of fonts, folders of images, saved arrays and tables.

Every function gives a `Split` (or two): examples, integer labels, class names.
"""

from kinfold.datasets._arrays import arrays as arrays
from kinfold.datasets._folder import image_folder as image_folder
from kinfold.datasets._glyphs import glyphs as glyphs
from kinfold.datasets._parquet import parquet as parquet
from kinfold.datasets._split import Split as Split
from kinfold.datasets._split import split_classes as split_classes
