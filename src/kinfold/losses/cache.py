"""Losses made for a function's call, kept for the next."""

import functools
from typing import Any


@functools.lru_cache(maxsize=64)
def cached_loss(kind: Any, *args: Any, **kwargs: Any) -> Any:
    """`kind(*args, **kwargs)`, the same one each time: JAX and TensorFlow compile once for each."""
    return kind(*args, **kwargs)
