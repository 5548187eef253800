"""A run, or the bundle exported from a run, served to people and programs.

A page and an API; they need the extra `serve`. They lie beside the package, as a bundle needs no
Keras.
"""

from kinfold_serving.server import serve as serve
