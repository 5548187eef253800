"""Keras keeps to its backend: a run does not load TensorFlow beside it."""

import os
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest

from kinfold.core import backends
from native import BACKEND
from runs import write_vectors

RUN = """
import sys
from kinfold.training import Settings, train
train(Settings("vectors.npz", epochs=1, steps_per_epoch=2), "run")
print("tensorflow" in sys.modules)
import keras
keras.utils.set_random_seed(0)
print("tensorflow" in sys.modules)
"""


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow is the backend")
def test_a_run_does_not_load_tensorflow_beside_its_backend(tmp_path: Path) -> None:
    """Keras alone loads it in the call that follows, and is not kept from it there."""
    write_vectors(tmp_path / "vectors.npz")
    environment = {**os.environ, "KERAS_BACKEND": BACKEND, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", str(find_spec("tensorflow") is not None)]


def test_the_seed_is_that_of_keras() -> None:
    drawn = []
    for seed in (keras.utils.set_random_seed, backends.set_random_seed):
        seed(3)
        numbers = keras.ops.convert_to_numpy(keras.random.normal((4,)))
        state = np.random.get_state()[1]  # noqa: NPY002
        drawn.append([random.random(), *state, *numbers])
    assert drawn[0] == drawn[1]
