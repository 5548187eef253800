"""A run, or the bundle that was exported of one, served to people and programs.

A page and an API; needs the extra `serve`. It lies beside the package, as a bundle needs no Keras.
"""

from kinfold_serving.server import serve as serve
