"""A run served to people and programs: a page and an API. Needs the extra `serve`."""

from kinfold.serving.server import serve as serve
