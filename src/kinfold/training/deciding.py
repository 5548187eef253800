"""The threshold of a run: set on its validation classes, shown on its test classes."""

import hashlib
from typing import Any

import keras
import numpy as np

from kinfold.datasets import Split
from kinfold.thresholds.held_out import HeldOut
from kinfold.thresholds.pairs import rates
from kinfold.thresholds.result import Threshold, said
from kinfold.training import evaluation, results
from kinfold.training.run_folder import RunFolder
from kinfold.training.sampling import Sample


def identity(model: keras.Model) -> str:
    """A hexadecimal digest of a model: of its layers and the bits of its weights."""
    kinds = [type(layer).__name__ for layer in getattr(model, "layers", [])]
    digest = hashlib.sha256(repr((kinds, getattr(model, "input_shape", None))).encode())
    for variable in model.variables:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        digest.update(repr((value.shape, value.dtype.name)).encode() + value.tobytes())
    return digest.hexdigest()


def calibrated(folder: RunFolder, validation: Split, sample: Sample) -> dict[str, Any]:
    """Keep what decisions are calibrated by; say what the usual threshold does on the test.

    Args:
        folder: of the run, which holds its model.
        validation: the examples that the epochs were chosen by.
        sample: the test examples that are shown.

    Returns:
        {"distance": ..., "far": ..., "interval": [low, high] or None, "recall": ..., "test":
        {"far": ..., "recall": ...}, "said": in words}; {} where the validation classes are too few
        to calibrate by.
    """
    model = keras.saving.load_model(folder.model)
    part = results.some(validation)
    vectors = evaluation.embed(model, part.x)
    held = HeldOut(vectors, part.y.astype(np.int64), part.names, identity(model))
    held.save(folder.calibration)
    try:
        found = held.pairs()
    except ValueError:  # less than a hundred pairs of different classes, or none of one
        return {}
    there = rates(found, evaluation.embed(model, sample.split.x), sample.split.y)
    test = {"far": there[0], "recall": there[1]}
    return {
        "distance": found.distance,
        "far": found.far,
        "interval": found.interval,
        "recall": found.recall,
        "test": test,
        "said": _text(found, test),
    }


def _text(found: Threshold, test: dict[str, float]) -> str:
    return (
        f"The threshold, set on the validation classes. {said(found)} On the test classes: "
        f"{test['far']:.2%} false accepts, and {test['recall']:.1%} of pairs of one class are "
        "found."
    )
