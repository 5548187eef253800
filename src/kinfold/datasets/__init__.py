"""Data to train and test on: characters of fonts, folders of images, saved arrays and tables.

Every function gives a `Split`, or several: examples, integer labels, class names.
"""

from _kinfold_text import DATA_FORMS as DATA_FORMS
from kinfold.core.stored import Stored as Stored
from kinfold.datasets._arrays import arrays as arrays
from kinfold.datasets._folder import image_folder as image_folder
from kinfold.datasets._glyphs import glyphs as glyphs
from kinfold.datasets._listing import image_list as image_list
from kinfold.datasets._names import shown as shown
from kinfold.datasets._parquet import parquet as parquet
from kinfold.datasets._parts import parts as parts
from kinfold.datasets._split import Split as Split
from kinfold.datasets._split import Splits as Splits
from kinfold.datasets._split import split_classes as split_classes
