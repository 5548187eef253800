"""The files of an `Indexer`: its store, its search, and what makes it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kinfold.compat.tensorflow_similarity.classification_metrics import make_classification_metric
from kinfold.compat.tensorflow_similarity.search import make_search
from kinfold.core import files

_FILE = "index_metadata.json"
_ARGUMENTS = (
    *("embedding_size", "distance", "kv_store", "evaluator"),
    *("embedding_output", "stat_buffer_size"),
)


def save(index: Any, path: str | Path, compression: bool) -> None:
    """Write an index into a folder; see `Indexer.save`."""
    names = {"kv_store": index.kv_store_type, "evaluator": index.evaluator_type}
    for argument, value in names.items():
        if not isinstance(value, str):
            raise ValueError(
                f"An indexer whose `{argument}` is an object of your own cannot be saved, as "
                "nothing is known of how to make it again: save the object itself."
            )
    Path(path).mkdir(parents=True, exist_ok=True)
    content = {
        **names,
        "size": index.size(),
        "distance": index.distance.name,
        "embedding_output": index.embedding_output,
        "embedding_size": index.embedding_size,
        "search_config": index.search.get_config(),
        "stat_buffer_size": index.stat_buffer_size,
        "is_calibrated": index.is_calibrated,
        "calibration_metric_config": index.calibration_metric.get_config(),
        "cutpoints": index.cutpoints,
        "calibration_thresholds": {
            name: column.tolist() for name, column in index.calibration_thresholds.items()
        },
    }
    index.kv_store.save(str(path), compression=compression)
    index.search.save(str(path))
    files.write_json(Path(path) / _FILE, content)


def load(kind: Any, path: str | Path, verbose: int) -> Any:
    """Read an index of this class that `save` wrote; see `Indexer.load`."""
    file = Path(path) / _FILE
    if not file.exists():
        raise FileNotFoundError(f"There is no index at {str(path)!r}.")
    content = files.read_json(file)
    index = kind(
        search=make_search(content["search_config"]),
        **{name: content[name] for name in _ARGUMENTS},
    )
    records = index.kv_store.load(str(path))
    index.search.load(str(path))
    if verbose:
        print(f"Read an index of {records} embeddings.")
    index.is_calibrated = content["is_calibrated"]
    if index.is_calibrated:
        metric = content["calibration_metric_config"]
        index.calibration_metric = make_classification_metric(
            metric["canonical_name"], metric["name"]
        )
        index.cutpoints = {
            name: {what: _or_infinite(value) for what, value in cutpoint.items()}
            for name, cutpoint in content["cutpoints"].items()
        }
        index.calibration_thresholds = {
            name: np.array(list(map(_or_infinite, column)), np.float32)
            for name, column in content["calibration_thresholds"].items()
        }
    return index


def _or_infinite(value: Any) -> Any:
    return np.inf if value is None else value  # JSON has no infinity
