"""Several ranks train the model that one process trains, step by step."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from native import assert_close

WORLD = int(os.environ.get("KINFOLD_TEST_RANKS", "2"))
WORKER = Path(__file__).parents[1] / "rank_training.py"


def trained(world: int, folder: Path) -> dict[str, np.ndarray]:
    file = folder / f"of_{world}.npz"
    command = [sys.executable, str(WORKER), str(world), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(np.load(file))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    folder = tmp_path_factory.mktemp("trained")
    return trained(1, folder), trained(WORLD, folder)


def test_losses_and_weights_are_those_of_one_process(both: tuple[dict, dict]) -> None:
    alone, of_ranks = both
    assert list(alone) == list(of_ranks)
    for name, value in alone.items():
        assert_close(of_ranks[name], value, 1e-5, name)


def test_every_loss_learns_something(both: tuple[dict, dict]) -> None:
    losses = [value for name, value in both[0].items() if name.endswith("/losses")]
    assert len(losses) >= 4
    for values in losses:
        assert len(set(values.tolist())) == len(values)
