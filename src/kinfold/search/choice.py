"""Which engine serves an index, and its making."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np

from _kinfold_text import did_you_mean
from kinfold import distances
from kinfold.search.engines import Engine, Kept
from kinfold.search.engines.compressed import CODECS, Compressed
from kinfold.search.engines.exact import Exact
from kinfold.search.engines.faiss import Faiss
from kinfold.search.engines.milvus import Milvus

ENGINES = ("auto", "exact", "faiss", "milvus")
# "auto" compares every vector up to so many; see benchmarks/results/search.json.
EXACT_UP_TO = 1_000_000
_OPTIONS = {"faiss": {"factory"}, "milvus": {"uri", "token", "collection"}}
_PRODUCTS = ("cosine", "euclidean", "squared_euclidean", "inner_product")


def check(
    engine: str,
    distance: distances.Distance,
    compress: str | None,
    options: dict[str, Any] | None,
) -> None:
    """Refuse what does not go together."""
    if engine not in ENGINES:
        raise ValueError(
            f"Unknown engine. Expected one of {', '.join(ENGINES)}. Received: engine={engine!r}."
            + did_you_mean(str(engine), ENGINES)
        )
    if compress is not None and compress not in CODECS:
        raise ValueError(
            f"`compress` must be None, {' or '.join(map(repr, CODECS))}. Received: "
            f"compress={compress!r}."
        )
    if compress is not None and engine not in ("auto", "exact"):
        raise ValueError(
            f"`compress` is for the engine exact, and {engine} has ways of its own. Received: "
            f"compress={compress!r}, engine={engine!r}."
        )
    if (compress or engine in _OPTIONS) and distance.name not in _PRODUCTS:
        what = f"compress={compress!r}" if compress else f"engine={engine!r}"
        raise ValueError(
            f"The distance {distance.name} is computed exactly alone: leave out {what}, or take "
            f"one of {', '.join(_PRODUCTS)}."
        )
    unknown = set(options or {}) - _OPTIONS.get(engine, set())
    if unknown:
        known = ", ".join(sorted(_OPTIONS.get(engine, set()))) or "none"
        raise ValueError(
            f"The engine {engine} takes the options {known}. Received: {sorted(unknown)[0]}."
        )


def made(index: Any) -> Engine:
    """The engine of an index, with its vectors: what an earlier process has kept, or built anew."""
    engine = _empty(index)
    if index._saved and isinstance(engine, Kept):
        restored = engine.restore(Path(index.path), index._saved, len(index))
        if restored:
            return cast(Engine, engine)
    for start, rows in index._vectors.blocks():
        engine.add(rows, index._numbers[start : start + len(rows)])
    keep(index, engine)
    return engine


def keep(index: Any, engine: Engine | None) -> None:
    """Leave what an engine has built to later processes, which number the rows from 0."""
    in_order = np.array_equal(index._numbers, np.arange(len(index)))
    if index._saved and in_order and isinstance(engine, Kept):
        engine.keep(Path(index.path), index._saved)


def _empty(index: Any) -> Engine:
    kind, name, options = index.distance, index.engine, index.options
    if index.compress is not None:
        return Compressed(kind, index.compress)
    if name == "auto":
        name = _automatic(kind, len(index))
    if name == "faiss":
        return Faiss(kind, index.dimension, **options)
    if name == "milvus":
        if "token" not in options:
            options = {**options, "token": os.environ.get("KINFOLD_MILVUS_TOKEN", "")}
        if "uri" not in options:
            folder = index.path or tempfile.mkdtemp(prefix="kinfold-milvus-")
            options = {**options, "uri": os.path.join(folder, "milvus.db")}
        return Milvus(kind, index.dimension, **options)
    return Exact(kind)


def _automatic(kind: distances.Distance, count: int) -> str:
    if count <= EXACT_UP_TO or kind.name not in _PRODUCTS:
        return "exact"
    if importlib.util.find_spec("faiss") is None:
        warnings.warn(
            f"This index holds {count:,} vectors, which are all compared. For faster searches: pip "
            "install kinfold[faiss].",
            stacklevel=7,  # whoever searches
        )
        return "exact"
    warnings.warn(
        f"This index holds {count:,} vectors, so FAISS searches it and may miss a few of the "
        "nearest. engine='exact' compares all.",
        stacklevel=7,  # whoever searches
    )
    return "faiss"
