"""What `collect_stats=True` records of a call: numbers, as attributes under the peer's names.

They need known numbers, outside of a compiled step. Those of reducers need a list of all elements,
as the peer makes one.
"""

import copy
from typing import Any

import keras
import numpy as np

from kinfold.compat.pytorch_metric_learning import reducers, tuples


def of_each_part(reducer: reducers.BaseReducer, names: Any) -> reducers.BaseReducer:
    """A reducer that records numbers, as one of its own for each of several parts of a loss."""
    if not reducer.collect_stats or len(names) < 2:
        return reducer
    if isinstance(reducer, reducers.MultipleReducers):
        return reducer
    return reducers.MultipleReducers({name: copy.copy(reducer) for name in names})


def collects(reducer: Any) -> bool:
    """Whether a reducer, or one of a part, records numbers."""
    if isinstance(reducer, reducers.MultipleReducers):
        return any(map(collects, (*reducer.reducers.values(), reducer.default_reducer)))
    return reducer is not None and reducer.collect_stats


def of_elements(reducer: reducers.BaseReducer, listed: dict[str, dict[str, Any]]) -> None:
    """Record what a reducer finds of the elements of each part of a loss."""
    for name, part in listed.items():
        reducers.of_part(reducer, name).record(part["losses"])


def degrees(cosine: np.ndarray) -> float:
    """The mean angle of cosines, in degrees."""
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1)).mean()))


def of_triplet_angles(x: Any, r: Any, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """The angle at each negative of each positive pair, in radians: `losses.AngularLoss`.

    Args:
        x: unit rows [n, d].
        r: rows [m, d], whose positives are taken with unit norm.
        positive, negative: boolean [n, m].
    """
    x, r = tuples.numbers(x), tuples.numbers(r)
    unit = r / np.maximum(np.linalg.norm(r, axis=1, keepdims=True), keras.config.epsilon())
    found = [np.empty(0)]
    for a, p in zip(*np.nonzero(positive), strict=True):
        away = np.linalg.norm((x[a] + unit[p]) / 2 - r[negative[a]], axis=1)
        with np.errstate(divide="ignore"):
            found.append(np.arctan(np.linalg.norm(x[a] - unit[p]) / (2 * away)))
    return np.concatenate(found)
