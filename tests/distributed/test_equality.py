"""Several ranks give what one process gives: each loss, its gradients, on each backend."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases import batch
from kinfold import losses
from native import BACKEND, assert_close, float64, number, value_and_gradients
from rank_checks import Check, checks

WORLD = int(os.environ.get("KINFOLD_TEST_RANKS", "2"))
WORKER = Path(__file__).parents[1] / "rank_worker.py"


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Values and gradients of every check, from ranks that run beside this process."""
    if "KINFOLD_FOUND" in os.environ:
        return np.load(os.environ["KINFOLD_FOUND"])
    file = tmp_path_factory.mktemp("ranks") / "found.npz"
    command = [sys.executable, "-W", "error::FutureWarning", str(WORKER), str(WORLD), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return np.load(file)


def alone(check: Check) -> dict[str, Any]:
    """As the worker writes it down, of one process with the whole batch."""
    loss, names = check.build(), list(check.grad)
    variables = list(getattr(loss, "trainable_variables", []))

    def value(*tensors: Any) -> Any:
        count = len(names)
        given = dict(zip(names, tensors[:count], strict=True))
        if not variables:
            return check.call(loss, given, check.data)
        import keras

        with keras.StatelessScope(zip(variables, tensors[count:], strict=True)):
            return check.call(loss, given, check.data)

    arrays = [*check.grad.values(), *(np.array(v) for v in variables)]
    found, gradients = value_and_gradients(value, *arrays)
    every = [*names, *(f"variable{i}" for i in range(len(variables)))]
    return {"value": found, **dict(zip(every, gradients, strict=True))}


@pytest.mark.skipif(BACKEND != "jax", reason="a feature of JAX alone")
def test_within_a_device_a_loss_is_refused_unless_it_is_to_be_local(of_ranks: Any) -> None:
    said = str(of_ranks["shard_map/said"])
    assert "over batch a loss sees one device's rows. Call it outside" in said
    y, x = batch(8 * WORLD)
    loss = losses.CircleLoss()
    cuts = [slice(8 * i, 8 * i + 8) for i in range(WORLD)]
    expected = [number(loss(y[cut], x[cut])) for cut in cuts]
    assert_close(of_ranks["shard_map/local"], expected, 1e-5)


@pytest.mark.parametrize("name", list(checks()))
def test_ranks_give_what_one_process_gives(name: str, of_ranks: Any) -> None:
    check = checks()[name]
    wide = any(a.dtype == np.float64 for a in check.grad.values())
    with float64():
        expected = alone(check)
    for key, value in expected.items():
        rtol = 1e-10 if wide else 2e-5 if check.road == "fused" else 1e-5
        assert_close(of_ranks[f"{name}/{key}"], value, rtol, key)
